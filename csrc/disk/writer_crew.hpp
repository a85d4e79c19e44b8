#pragma once
// The few threads that write all files of one disk: more would only take turns at the device, and take cores
// from the training. Any thread may hand over work; whoever owns the disk ends it.

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "base/result.hpp"

namespace pccl::disk {

class WriterCrew {
 public:
  static constexpr unsigned threads_max = 4;

  WriterCrew() = default;
  ~WriterCrew();  // carries out what is queued
  WriterCrew(const WriterCrew&) = delete;
  WriterCrew& operator=(const WriterCrew&) = delete;

  // Starts threads until there are so many (at most threads_max). Fewer will do; an error: there is none.
  Error staff(unsigned threads);
  void put(std::function<void()> job);  // after staff() went well; first come, first served

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable put_;
  std::deque<std::function<void()>> jobs_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace pccl::disk
