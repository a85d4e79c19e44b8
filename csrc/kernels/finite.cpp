// Plain loops that the compiler makes vectors of on any architecture: additions and ors of integers alone.

#include "kernels/finite.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/float_modes.hpp"

namespace pccl::kernels {
namespace {

constexpr std::size_t run = 4096;  // elements between two looks at what was found

// An exponent of nothing but ones, plus its lowest bit, carries into the sign.
template <class Bits> struct Finite {
  Bits exponent, lowest;
  Bits operator()(const std::byte* at) const {
    Bits bits;
    std::memcpy(&bits, at, sizeof bits);
    return Bits((bits & exponent) + lowest);
  }
};

struct FitsFloat {
  using Bits = std::uint32_t;
  Bits operator()(const std::byte* at) const {
    double value;
    std::memcpy(&value, at, sizeof value);
    const auto narrow = static_cast<float>(value);
    return Finite<Bits>{0x7f800000u, 0x00800000u}(reinterpret_cast<const std::byte*>(&narrow));
  }
};

template <class Bits, class Look>
bool none_carries(const std::byte* data, std::size_t count, std::size_t size, Look look) {
  constexpr auto sign = Bits(Bits{1} << (8 * sizeof(Bits) - 1));
  for (std::size_t first = 0; first < count; first += run) {
    const std::size_t end = std::min(first + run, count);
    Bits seen = 0;
    for (std::size_t i = first; i < end; ++i) seen = Bits(seen | look(data + i * size));
    if ((seen & sign) != 0) return false;
  }
  return true;
}

}  // namespace

bool all_finite(DType element, const void* data, std::size_t count, Quantization kind) {
  const DefaultFloatModes modes;
  const auto* const bytes = static_cast<const std::byte*>(data);
  switch (element) {
    case DType::float32:
      return none_carries<std::uint32_t>(bytes, count, 4, Finite<std::uint32_t>{0x7f800000u, 0x00800000u});
    case DType::float64:
      if (kind == Quantization::bf16) return none_carries<std::uint32_t>(bytes, count, 8, FitsFloat{});
      return none_carries<std::uint64_t>(bytes, count, 8,
                                         Finite<std::uint64_t>{0x7ff0000000000000u, 0x0010000000000000u});
    case DType::float16:
      return none_carries<std::uint16_t>(bytes, count, 2, Finite<std::uint16_t>{0x7c00, 0x0400});
    case DType::bfloat16:
      return none_carries<std::uint16_t>(bytes, count, 2, Finite<std::uint16_t>{0x7f80, 0x0080});
    default:
      return true;
  }
}

}  // namespace pccl::kernels
