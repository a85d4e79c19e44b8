#pragma once
// The ways to quantize, as numbered on the wire: never renumber, only append. The arithmetic is in
// kernels/quantize.hpp.

#include <cstdint>
#include <string_view>

namespace pccl {

enum class Quantization : std::uint8_t { none = 1, int8, uint8, int4, fp8, bf16 };

// The highest number of an enumeration that travels in messages.
template <class E> inline constexpr std::uint8_t last_of = 0;
template <> inline constexpr std::uint8_t last_of<Quantization> = 6;

constexpr std::string_view name(Quantization kind) {
  switch (kind) {
    case Quantization::none:
      return "none";
    case Quantization::int8:
      return "int8";
    case Quantization::uint8:
      return "uint8";
    case Quantization::int4:
      return "int4";
    case Quantization::fp8:
      return "fp8";
    case Quantization::bf16:
      return "bf16";
  }
  return "invalid quantization";
}

}  // namespace pccl
