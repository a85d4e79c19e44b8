#include "staging/yielding.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace pccl::staging {

namespace {

constexpr int niceness = 10;  // a tenth of what a training thread gets on the same core

}  // namespace

void yield_to_others(const char* name) {
  const sched_param none{};
  ::sched_setscheduler(0, SCHED_BATCH, &none);
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), niceness);
  ::pthread_setname_np(::pthread_self(), name);
}

}  // namespace pccl::staging
