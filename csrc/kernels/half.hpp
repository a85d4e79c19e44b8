#pragma once
// float16 and bfloat16 <-> float32, one value at a time, in integer arithmetic: the same bits on every
// machine, and those that the vector instructions give. A NaN keeps its sign and upper payload; from float32
// it becomes quiet. always_inline: no out-of-line copy may exist, or the linker could pick one built for a
// newer CPU.

#include <cstdint>

namespace pccl::kernels {

[[gnu::always_inline]] inline std::uint32_t bits_of(float value) {
  return __builtin_bit_cast(std::uint32_t, value);
}
[[gnu::always_inline]] inline float float_of(std::uint32_t bits) { return __builtin_bit_cast(float, bits); }

[[gnu::always_inline]] inline float float_from_half(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t fraction = half & 0x3ffu;
  if (exponent == 31) {
    const std::uint32_t quiet = fraction != 0 ? 0x400000u : 0u;
    return float_of(sign | 0x7f800000u | quiet | (fraction << 13));
  }
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24, exact and normal in float32
    return float_of(sign | bits_of(static_cast<float>(fraction) * 0x1p-24f));
  }
  return float_of(sign | ((exponent + 112) << 23) | (fraction << 13));
}

[[gnu::always_inline]] inline std::uint16_t half_from_float(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u | ((size >> 13) & 0x3ffu));
  if (size >= 0x47800000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // 2^16 and more, infinity
  if (size >= 0x38800000u) {  // normal; a carry out of the fraction raises the exponent, up to infinity
    const std::uint32_t rebased = size - (112u << 23);
    return static_cast<std::uint16_t>(sign | ((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13));
  }
  if (size < 0x33000000u) return static_cast<std::uint16_t>(sign);  // below half of the smallest subnormal
  const std::uint32_t shift = 126 - (size >> 23);                   // 14 to 24
  const std::uint32_t fraction = (size & 0x7fffffu) | 0x800000u;
  const std::uint32_t rest = fraction & ((1u << shift) - 1);
  const std::uint32_t tie = 1u << (shift - 1);
  const std::uint32_t kept = fraction >> shift;
  const std::uint32_t up = rest > tie || (rest == tie && (kept & 1u) != 0) ? 1u : 0u;
  return static_cast<std::uint16_t>(sign | (kept + up));
}

[[gnu::always_inline]] inline float float_from_bfloat16(std::uint16_t value) {
  return float_of(static_cast<std::uint32_t>(value) << 16);
}

[[gnu::always_inline]] inline std::uint16_t bfloat16_from_float(float value) {
  const std::uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace pccl::kernels
