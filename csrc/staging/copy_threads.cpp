#include "staging/copy_threads.hpp"

#include <pthread.h>

#include <atomic>
#include <csignal>
#include <string>
#include <system_error>
#include <thread>

#include "staging/yielding.hpp"

namespace pccl::staging {
namespace {

// Threads that are started meanwhile leave signals to the user's threads.
class SignalsElsewhere {
 public:
  SignalsElsewhere() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsElsewhere() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsElsewhere(const SignalsElsewhere&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace

CopyThreads& CopyThreads::here() {
  static std::atomic<CopyThreads*> current{new CopyThreads(Monitor::here())};  // never destroyed
  auto* found = current.load();
  if (found->monitor_.ours()) return *found;
  auto* const own = new CopyThreads(Monitor::here());
  if (current.compare_exchange_strong(found, own)) return *own;
  delete own;
  return *found;
}

Error CopyThreads::want(unsigned threads) {
  const SignalsElsewhere signals;
  try {
    for (; threads_ < threads; ++threads_) std::thread([this] { run(); }).detach();
  } catch (const std::system_error& error) {
    if (threads_ > 0) return {};  // slower, and otherwise the same
    return {ErrorCode::checkpoint, std::string("cannot start a thread that copies: ") + error.what() +
                                       "; the user or the container has reached its limit of processes: "
                                       "raise it (ulimit -u, pids.max)"};
  }
  return {};
}

void CopyThreads::add(std::shared_ptr<Copying> copying) {
  std::erase_if(all_, [](const auto& one) { return one->is_over(); });
  all_.push_back(std::move(copying));
  monitor_.work.notify_all();
}

bool CopyThreads::work(Lock& lock, Copying::Who who) {
  std::erase_if(all_, [](const auto& one) { return one->is_over(); });
  for (std::size_t i = 0; i < all_.size(); ++i) {
    const auto copying = all_[i];  // stays while it works; `all_` may be another afterwards
    if (copying->work(lock, who)) return true;
  }
  return false;
}

void CopyThreads::stop_all() {
  std::vector<std::shared_ptr<Copying>> all;
  {
    const Lock lock(monitor_.mutex);
    all = all_;
  }
  for (const auto& one : all) one->stop();
}

void CopyThreads::run() {
  yield_to_others("pccl-copy");
  Lock lock(monitor_.mutex);
  for (;;)
    if (!work(lock, Copying::Who::thread)) monitor_.work.wait(lock);
}

}  // namespace pccl::staging
