// A thread that may not be had: limits on users and containers are reached where nobody expects it.
#pragma once
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

#include "base/result.hpp"

namespace pccl {

template <class Run> Result<std::unique_ptr<std::thread>> start_thread(Run run) {
  try {
    return std::make_unique<std::thread>(std::move(run));
  } catch (const std::system_error& error) {
    return Error{ErrorCode::connect, std::string("cannot start a thread: ") + error.what() +
                                         "; the user or the container has reached its limit of processes: "
                                         "raise it (ulimit -u, pids.max)"};
  }
}

// First of all in a thread of the library's: what it is called, and that signals are for the user's threads.
void begin_own_thread(const char* name);

// Whether this thread is let in sooner, for shorter turns, and for no more time in all. A newcomer's state
// travels while all cores compute: each block would wait some milliseconds for them, several times. Where
// little is computed it is no gain, and small operations wait longer. Linux 6.12; before, nothing changes.
void take_short_slices(bool take);

}  // namespace pccl
