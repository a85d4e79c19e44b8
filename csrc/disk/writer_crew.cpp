#include "disk/writer_crew.hpp"

#include <pthread.h>

#include <algorithm>
#include <system_error>

#include "disk/signals_blocked.hpp"

namespace pccl::disk {

WriterCrew::~WriterCrew() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  put_.notify_all();
  for (auto& thread : threads_) thread.join();
}

Error WriterCrew::staff(unsigned threads) {
  const std::lock_guard lock(mutex_);
  const SignalsBlocked blocked;
  try {
    while (threads_.size() < std::clamp(threads, 1u, threads_max)) threads_.emplace_back([this] { run(); });
  } catch (const std::system_error& error) {
    if (threads_.empty())
      return {ErrorCode::checkpoint, std::string("cannot start a thread that writes: ") + error.what() +
                                         "; the user or the container has reached its limit of processes: "
                                         "raise it (ulimit -u, pids.max)"};
  }
  return {};
}

void WriterCrew::put(std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  put_.notify_one();
}

void WriterCrew::run() {
  ::pthread_setname_np(::pthread_self(), "pccl-disk");
  std::unique_lock lock(mutex_);
  for (;;) {
    put_.wait(lock, [&] { return ending_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    auto job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
    job = nullptr;  // what it holds goes before anybody can ask whether it is over
    lock.lock();
  }
}

}  // namespace pccl::disk
