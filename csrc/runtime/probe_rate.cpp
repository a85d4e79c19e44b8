#include "runtime/probe_rate.hpp"

#include <algorithm>

namespace pccl {

namespace {
constexpr int round_trips = 10;  // until a stream carries what the way can take: it doubles with each
constexpr Duration longest = 3 * second;
}  // namespace

void ProbeRate::begin(Duration time, Duration rtt, Instant now) {
  samples_.clear();
  begun_ = now;
  least_ = std::max(time / 2, round_trips * rtt);
  usual_ = std::max(time, round_trips * rtt);
  most_ = std::min(std::max(time + time / 2, 2 * round_trips * rtt), std::max(longest, time));
}

void ProbeRate::add(Instant now, std::uint64_t confirmed) { samples_.push_back({now, confirmed}); }

double ProbeRate::rate(std::size_t from, std::size_t to) const {
  const auto time = samples_[to].at - samples_[from].at;
  return time <= 0
             ? 0
             : double(samples_[to].confirmed - samples_[from].confirmed) * double(second) / double(time);
}

// The last two quarters tell the same.
bool ProbeRate::steady() const {
  if (samples_.size() < 9) return false;
  const auto last = samples_.size() - 1;
  const auto late = rate(last * 3 / 4, last), before = rate(last / 2, last * 3 / 4);
  return late > 0 && std::max(late, before) <= 1.1 * std::min(late, before);
}

bool ProbeRate::over(Instant now) const {
  const auto took = now - begun_;
  return took >= most_ || (took >= least_ && steady()) || (took >= usual_ && most_ - usual_ < usual_ / 4);
}

std::uint64_t ProbeRate::best() const {
  if (samples_.size() < 2) return 0;
  const auto third = (samples_.back().at - begun_) / 3;
  double most = 0;
  for (std::size_t from = 0, to = 0; from < samples_.size(); ++from) {
    while (to < samples_.size() && samples_[to].at - samples_[from].at < third) ++to;
    if (to == samples_.size()) break;
    most = std::max(most, rate(from, to));
  }
  return std::uint64_t(most);
}

}  // namespace pccl
