// A seeded source of random numbers (SplitMix64). Each link has its own, so that what one link loses does not
// depend on what the others carry.
#pragma once
#include <cstdint>

namespace wan {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  double below_one() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  std::uint64_t next() {
    std::uint64_t mixed = state_ += 0x9e3779b97f4a7c15;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    return mixed ^ (mixed >> 31);
  }

  std::uint64_t state_;
};

}  // namespace wan
