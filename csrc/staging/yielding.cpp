#include "staging/yielding.hpp"

#include <pthread.h>
#include <sched.h>

#include "base/niceness.hpp"

namespace pccl::staging {

void yield_to_others(const char* name) {
  const sched_param none{};
  ::sched_setscheduler(0, SCHED_BATCH, &none);
  step_behind_main_thread();
  ::pthread_setname_np(::pthread_self(), name);
}

}  // namespace pccl::staging
