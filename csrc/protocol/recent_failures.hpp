// What went wrong in a run, for people who look later: the newest of it.
#pragma once
#include <deque>
#include <string>
#include <string_view>
#include <utility>

#include "base/clock.hpp"
#include "base/limits.hpp"

namespace pccl {

struct RecentFailure {
  enum class Kind { gone, evicted, begun_anew, failed };
  Kind kind = Kind::gone;
  Instant at = 0;
  std::string text;
};

inline std::string_view name(RecentFailure::Kind kind) {
  constexpr std::string_view names[] = {"peer gone", "evicted", "begun anew", "operation failed"};
  return names[std::size_t(kind)];
}

class RecentFailures {
 public:
  void note(RecentFailure::Kind kind, Instant at, const std::string& text) {
    all_.push_back({kind, at, text.substr(0, limits::reason_bytes_max)});
    if (all_.size() > limits::failures_kept_max) all_.pop_front();
  }
  const std::deque<RecentFailure>& all() const { return all_; }  // in order of time

 private:
  std::deque<RecentFailure> all_;
};

}  // namespace pccl
