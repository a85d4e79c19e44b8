// GF(2^8) on the architecture's baseline: bit by bit, 16 bytes at a time.

#include "kernels/galois_kernels.hpp"
#include "kernels/isa_scalar.hpp"

namespace pccl::kernels {
namespace {

struct GaloisScalar : Scalar {
  static constexpr std::size_t sums = 4;
  using Packed = std::uint8_t;
  static constexpr EveryFactor<Packed> every{};
  struct Factor {
    using R = Register<std::uint8_t, 16>;
    using Signs = Register<std::int8_t, 16>;
    explicit Factor(Packed c) {
      for (int bit = 0; bit < 8; ++bit) {
        const auto mask = static_cast<std::uint8_t>((c >> bit & 1) != 0 ? 0xff : 0);
        for (int lane = 0; lane < 16; ++lane) bits[bit][lane] = mask;
      }
    }
    [[gnu::always_inline]] R times(R value) const {
      R product = value & bits[0];
      for (int bit = 1; bit < 8; ++bit) {
        value = (value + value) ^ ((R)((Signs)value < 0) & std::uint8_t{0x1d});
        product ^= value & bits[bit];
      }
      return product;
    }
    R bits[8];
  };
};

constexpr GaloisTable table = make_galois<GaloisScalar>(GaloisLevel::scalar);

}  // namespace

const GaloisTable& scalar_galois() { return table; }

}  // namespace pccl::kernels
