#include "net/fork_guard.hpp"

#include <pthread.h>
#include <unistd.h>

#include <mutex>
#include <set>

namespace pccl::net {

namespace {

struct Guard {
  std::mutex mutex;
  std::set<int> descriptors;
};

// Never destroyed: threads may still close sockets while the process ends.
Guard& guard() {
  static Guard* const instance = [] {
    auto* g = new Guard;
    pthread_atfork([] { guard().mutex.lock(); }, [] { guard().mutex.unlock(); },
                   [] {
                     for (const int fd : guard().descriptors) ::close(fd);
                     guard().descriptors.clear();
                     guard().mutex.unlock();
                   });
    return g;
  }();
  return *instance;
}

}  // namespace

void install_fork_guard() { guard(); }

void guard_from_fork(int fd) {
  if (fd < 0) return;
  const std::lock_guard lock(guard().mutex);
  guard().descriptors.insert(fd);
}

bool unguard(int fd) {
  if (fd < 0) return false;
  const std::lock_guard lock(guard().mutex);
  return guard().descriptors.erase(fd) > 0;
}

}  // namespace pccl::net
