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

// First of all in a thread of the library's: what it is called, that signals are for the user's threads, and
// that it is woken soon.
void begin_own_thread(const char* name);

}  // namespace pccl
