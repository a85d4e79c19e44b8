// Time as the library sees it: nanoseconds of a monotonic clock. Pure code gets `now` as an argument and
// never asks.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace pccl {

using Instant = std::int64_t;   // nanoseconds, arbitrary origin
using Duration = std::int64_t;  // nanoseconds

inline constexpr Duration microsecond = 1'000;
inline constexpr Duration millisecond = 1'000'000;
inline constexpr Duration second = 1'000'000'000;
inline constexpr Instant never = INT64_MAX;

// "3 s", "1500 ms": for people.
inline std::string in_words(Duration time) {
  return time % second == 0 ? std::to_string(time / second) + " s"
                            : std::to_string(time / millisecond) + " ms";
}

inline Instant monotonic_now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace pccl
