#include "base/niceness.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace pccl {

namespace {

constexpr int steps = 10;  // of 1.25 each
constexpr int lowest = 19;

}  // namespace

// On Linux both are of one thread: of the main one, whose number is the process's, and of this one.
void step_behind_main_thread() {
  errno = 0;
  const int main_thread = ::getpriority(PRIO_PROCESS, static_cast<id_t>(::getpid()));
  if (errno == 0) ::setpriority(PRIO_PROCESS, 0, std::min(main_thread + steps, lowest));
}

}  // namespace pccl
