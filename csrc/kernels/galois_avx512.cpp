// GF(2^8) on AVX-512 without GFNI: two look-ups in tables of half bytes. Run only after the CPU has been
// asked.
#if defined(__x86_64__)

#include "kernels/galois_kernels.hpp"
#include "kernels/isa_avx512.hpp"

namespace pccl::kernels {
namespace {

struct GaloisAvx512 : Avx512 {
  static constexpr std::size_t sums = 16;
  using Packed = HalfByteProducts;
  static constexpr EveryFactor<Packed> every{};
  struct Factor {
    using R = Register<std::uint8_t, 64>;
    explicit Factor(const Packed& products) {
      low = four_times(products.low);
      high = four_times(products.high);
    }
    static __m512i four_times(const std::uint8_t* products) {
      return _mm512_maskz_broadcast_i32x4(0xffff, _mm_load_si128(reinterpret_cast<const __m128i*>(products)));
    }
    [[gnu::always_inline]] R times(R value) const {
      const __m512i half = _mm512_set1_epi8(15);
      const __m512i from_low = _mm512_shuffle_epi8(low, _mm512_and_si512((__m512i)value, half));
      const __m512i upper = _mm512_and_si512((__m512i)((Register<std::uint64_t, 64>)value >> 4), half);
      return (R)_mm512_xor_si512(from_low, _mm512_shuffle_epi8(high, upper));
    }
    __m512i low, high;
  };
};

constexpr GaloisTable table = make_galois<GaloisAvx512>(GaloisLevel::avx512);

}  // namespace

const GaloisTable& avx512_galois() { return table; }

}  // namespace pccl::kernels

#endif
