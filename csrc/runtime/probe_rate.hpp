// From what the other side confirmed, and when, to the speed of a link, and to whether it is known well
// enough. Pure.
#pragma once
#include <cstdint>
#include <vector>

#include "base/clock.hpp"

namespace pccl {

class ProbeRate {
 public:
  // `time`: about how long it should take. On long ways it takes longer: streams begin slowly.
  void begin(Duration time, Duration rtt, Instant now);
  void add(Instant now, std::uint64_t confirmed);
  bool over(Instant now) const;
  // Bytes per second of the best third: neither the slow beginning nor a pause of this machine counts.
  std::uint64_t best() const;

 private:
  struct Sample {
    Instant at;
    std::uint64_t confirmed;
  };
  double rate(std::size_t from, std::size_t to) const;
  bool steady() const;

  std::vector<Sample> samples_;
  Instant begun_ = 0;
  Duration least_ = 0, usual_ = 0, most_ = 0;
};

}  // namespace pccl
