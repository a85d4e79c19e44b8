// Picks the instruction set of CRC-32, once; joins CRCs of parts.

#include "kernels/crc32.hpp"

#include <array>

#include "kernels/crc32_table.hpp"
#include "kernels/reduce.hpp"

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace pccl::kernels {
namespace {

bool runs(Crc32Level level) {
  if (level == Crc32Level::scalar) return true;
#if defined(__x86_64__)
  const bool multiplies = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
  if (level == Crc32Level::pclmul) return multiplies;
  // What it needs beside itself is what the level of reduce.hpp needs.
  if (level == Crc32Level::vpclmul)
    return multiplies && kernels_at(Level::avx512) != nullptr && __builtin_cpu_supports("vpclmulqdq");
#elif defined(__aarch64__)
  if (level == Crc32Level::armv8) return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#endif
  return false;
}

// x^(8 * 2^i), which repeats: the order of x divides 2^32 - 1.
constexpr auto powers = [] {
  std::array<std::uint32_t, 32> at{};
  std::uint32_t square = crc32_math::power_of_x(8);
  for (auto& power : at) {
    power = square;
    square = crc32_math::product(square, square);
  }
  return at;
}();

}  // namespace

Crc32Level Crc32Set::level() const { return table_->level; }

std::uint32_t Crc32Set::of(const void* data, std::size_t bytes, std::uint32_t before) const {
  return ~table_->update(~before, static_cast<const std::byte*>(data), bytes);
}

std::uint32_t Crc32Set::copy(void* to, const void* from, std::size_t bytes, std::uint32_t before) const {
  return ~table_->copy(~before, static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes);
}

const Crc32Set* crc32_at(Crc32Level level) {
  if (!runs(level)) return nullptr;
  static const Crc32Set scalar{scalar_crc32()};
  if (level == Crc32Level::scalar) return &scalar;
#if defined(__x86_64__)
  static const Crc32Set pclmul{pclmul_crc32()}, vpclmul{vpclmul_crc32()};
  if (level == Crc32Level::pclmul) return &pclmul;
  if (level == Crc32Level::vpclmul) return &vpclmul;
#elif defined(__aarch64__)
  static const Crc32Set armv8{armv8_crc32()};
  if (level == Crc32Level::armv8) return &armv8;
#endif
  return nullptr;
}

const Crc32Set& best_crc32() {
  static const Crc32Set* const chosen = [] {
    const Crc32Set* fastest = nullptr;
    for (const Crc32Level level : all_crc32_levels) {
      if (const Crc32Set* set = crc32_at(level)) fastest = set;
    }
    return fastest;
  }();
  return *chosen;
}

Crc32Shift::Crc32Shift(std::uint64_t bytes) : power_(crc32_math::one) {
  for (std::size_t bit = 0; bytes != 0; bytes >>= 1, ++bit)
    if ((bytes & 1) != 0) power_ = crc32_math::product(power_, powers[bit % powers.size()]);
}

std::uint32_t Crc32Shift::combine(std::uint32_t crc_a, std::uint32_t crc_b) const {
  return crc32_math::product(power_, crc_a) ^ crc_b;
}

std::uint32_t crc32_combine(std::uint32_t crc_a, std::uint32_t crc_b, std::uint64_t bytes_b) {
  return Crc32Shift(bytes_b).combine(crc_a, crc_b);
}

}  // namespace pccl::kernels
