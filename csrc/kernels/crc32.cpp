// Picks the instruction set of CRC-32, once; joins CRCs of parts.

#include "kernels/crc32.hpp"

#include <array>

#include "kernels/crc32_table.hpp"
#include "kernels/fence.hpp"
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
using Powers = std::array<std::uint32_t, 32>;
constexpr Powers powers_of_x(Crc32Polynomial polynomial) {
  Powers at{};
  std::uint32_t square = crc32_math::power_of_x(polynomial, 8);
  for (auto& power : at) {
    power = square;
    square = crc32_math::product(polynomial, square, square);
  }
  return at;
}
constexpr Powers ieee_powers = powers_of_x(Crc32Polynomial::ieee);
constexpr Powers castagnoli_powers = powers_of_x(Crc32Polynomial::castagnoli);

template <Crc32Polynomial polynomial> const Crc32Set* set_at(Crc32Level level) {
  if (!runs(level)) return nullptr;
  static const Crc32Set scalar{scalar_crc32(polynomial)};
  if (level == Crc32Level::scalar) return &scalar;
#if defined(__x86_64__)
  static const Crc32Set pclmul{pclmul_crc32(polynomial)}, vpclmul{vpclmul_crc32(polynomial)};
  if (level == Crc32Level::pclmul) return &pclmul;
  if (level == Crc32Level::vpclmul) return &vpclmul;
#elif defined(__aarch64__)
  static const Crc32Set armv8{armv8_crc32(polynomial)};
  if (level == Crc32Level::armv8) return &armv8;
#endif
  return nullptr;
}

template <Crc32Polynomial polynomial> const Crc32Set& fastest() {
  static const Crc32Set* const chosen = [] {
    const Crc32Set* last = nullptr;
    for (const Crc32Level level : all_crc32_levels) {
      if (const Crc32Set* set = set_at<polynomial>(level)) last = set;
    }
    return last;
  }();
  return *chosen;
}

}  // namespace

Crc32Level Crc32Set::level() const { return table_->level; }

std::uint32_t Crc32Set::of(const void* data, std::size_t bytes, std::uint32_t before) const {
  return ~table_->update(~before, static_cast<const std::byte*>(data), bytes);
}

std::uint32_t Crc32Set::copy(void* to, const void* from, std::size_t bytes, std::uint32_t before,
                             bool streaming) const {
  auto* out = static_cast<std::byte*>(to);
  const auto* in = static_cast<const std::byte*>(from);
  const std::size_t head = (64 - reinterpret_cast<std::uintptr_t>(to) % 64) % 64;
  if (!streaming || bytes < 1024) return ~table_->copy(~before, out, in, bytes);
  const std::uint32_t state = table_->copy(~before, out, in, head);
  const std::uint32_t crc = ~table_->stream(state, out + head, in + head, bytes - head);
  fence(true);
  return crc;
}

const Crc32Set* crc32_at(Crc32Level level) { return set_at<Crc32Polynomial::ieee>(level); }
const Crc32Set* crc32c_at(Crc32Level level) { return set_at<Crc32Polynomial::castagnoli>(level); }

const Crc32Set& best_crc32() { return fastest<Crc32Polynomial::ieee>(); }
const Crc32Set& best_crc32c() { return fastest<Crc32Polynomial::castagnoli>(); }

Crc32Shift::Crc32Shift(std::uint64_t bytes, Crc32Polynomial polynomial)
    : polynomial_(polynomial), power_(crc32_math::one) {
  const Powers& powers = polynomial == Crc32Polynomial::ieee ? ieee_powers : castagnoli_powers;
  for (std::size_t bit = 0; bytes != 0; bytes >>= 1, ++bit)
    if ((bytes & 1) != 0) power_ = crc32_math::product(polynomial, power_, powers[bit % powers.size()]);
}

std::uint32_t Crc32Shift::combine(std::uint32_t crc_a, std::uint32_t crc_b) const {
  return crc32_math::product(polynomial_, power_, crc_a) ^ crc_b;
}

std::uint32_t crc32_combine(std::uint32_t crc_a, std::uint32_t crc_b, std::uint64_t bytes_b) {
  return Crc32Shift(bytes_b).combine(crc_a, crc_b);
}

std::uint32_t crc32c_combine(std::uint32_t crc_a, std::uint32_t crc_b, std::uint64_t bytes_b) {
  return Crc32Shift(bytes_b, Crc32Polynomial::castagnoli).combine(crc_a, crc_b);
}

}  // namespace pccl::kernels
