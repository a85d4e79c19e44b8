// GF(2^8) on NEON: two look-ups in tables of half bytes.
#if defined(__aarch64__)

#include "kernels/galois_kernels.hpp"
#include "kernels/isa_neon.hpp"

namespace pccl::kernels {
namespace {

struct GaloisNeon : Neon {
  static constexpr std::size_t sums = 16;
  using Packed = HalfByteProducts;
  static constexpr EveryFactor<Packed> every{};
  struct Factor {
    using R = Register<std::uint8_t, 16>;
    explicit Factor(const Packed& products) {
      low = vld1q_u8(products.low);
      high = vld1q_u8(products.high);
    }
    [[gnu::always_inline]] R times(R value) const {
      const auto bytes = (uint8x16_t)value;
      return (R)veorq_u8(vqtbl1q_u8(low, vandq_u8(bytes, vdupq_n_u8(15))),
                         vqtbl1q_u8(high, vshrq_n_u8(bytes, 4)));
    }
    uint8x16_t low, high;
  };
};

constexpr GaloisTable table = make_galois<GaloisNeon>(GaloisLevel::neon);

}  // namespace

const GaloisTable& neon_galois() { return table; }

}  // namespace pccl::kernels

#endif
