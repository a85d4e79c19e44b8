#include "fuzz/coverage.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

// What the compiler calls at every edge and comparison. Nothing here may be instrumented itself.
#define PLAIN __attribute__((no_sanitize("address", "undefined"), no_sanitize_coverage, noinline))

namespace pccl::fuzz {
namespace {

constexpr std::size_t slots = 1u << 16, words_max = 64;
// No std::array: its functions are instrumented, and would call what calls them.
std::uint8_t taken[slots];  // by this input
std::uint8_t known[slots];  // by all: how often, by magnitude
std::uint64_t compared[words_max];
std::size_t compared_next = 0, edges_known = 0;
std::uintptr_t before = 0;
bool recording = false, instrumented = false;

}  // namespace

bool Coverage::available() { return instrumented; }

void Coverage::forget() {
  std::memset(known, 0, sizeof known);
  edges_known = 0;
}

PLAIN void Coverage::begin() {
  if (!instrumented) return;
  std::memset(taken, 0, sizeof taken);
  before = 0;
  recording = true;
}

PLAIN std::size_t Coverage::end() {
  if (!recording) return 0;
  recording = false;
  std::size_t fresh = 0;
  for (std::size_t i = 0; i < slots; ++i) {
    if (taken[i] == 0) continue;
    const auto magnitude = std::uint8_t(1 + std::bit_width(taken[i]) / 2);
    if (magnitude <= known[i]) continue;
    edges_known += known[i] == 0;
    known[i] = magnitude;
    ++fresh;
  }
  return fresh;
}

std::size_t Coverage::edges() { return edges_known; }

std::vector<std::uint64_t> Coverage::words() {
  return {compared, compared + std::min(compared_next, words_max)};
}

namespace {

PLAIN void compare(std::uint64_t a, std::uint64_t b) {
  if (!recording || a == b) return;
  compared[compared_next++ % words_max] = a;
}

}  // namespace
}  // namespace pccl::fuzz

extern "C" {

PLAIN void __sanitizer_cov_trace_pc() {
  using namespace pccl::fuzz;
  instrumented = true;
  if (!recording) return;
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  auto& count = taken[((here >> 1) ^ before) % slots];
  if (count != 255) ++count;
  before = here >> 2;
}

// The first is the constant.
PLAIN void __sanitizer_cov_trace_const_cmp1(std::uint8_t, std::uint8_t) {}
PLAIN void __sanitizer_cov_trace_const_cmp2(std::uint16_t a, std::uint16_t b) { pccl::fuzz::compare(a, b); }
PLAIN void __sanitizer_cov_trace_const_cmp4(std::uint32_t a, std::uint32_t b) { pccl::fuzz::compare(a, b); }
PLAIN void __sanitizer_cov_trace_const_cmp8(std::uint64_t a, std::uint64_t b) { pccl::fuzz::compare(a, b); }
PLAIN void __sanitizer_cov_trace_cmp1(std::uint8_t, std::uint8_t) {}
PLAIN void __sanitizer_cov_trace_cmp2(std::uint16_t, std::uint16_t) {}
PLAIN void __sanitizer_cov_trace_cmp4(std::uint32_t a, std::uint32_t b) { pccl::fuzz::compare(a, b); }
PLAIN void __sanitizer_cov_trace_cmp8(std::uint64_t a, std::uint64_t b) { pccl::fuzz::compare(a, b); }
PLAIN void __sanitizer_cov_trace_cmpf(float, float) {}
PLAIN void __sanitizer_cov_trace_cmpd(double, double) {}
PLAIN void __sanitizer_cov_trace_switch(std::uint64_t, void*) {}
}
