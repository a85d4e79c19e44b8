// GF(2^8) on AVX2: two look-ups in tables of half bytes. Run only after the CPU has been asked.
#if defined(__x86_64__)

#include "kernels/galois_kernels.hpp"
#include "kernels/isa_avx2.hpp"

namespace pccl::kernels {
namespace {

struct GaloisAvx2 : Avx2 {
  static constexpr std::size_t sums = 8;
  using Packed = HalfByteProducts;
  static constexpr EveryFactor<Packed> every{};
  struct Factor {
    using R = Register<std::uint8_t, 32>;
    explicit Factor(const Packed& products) {
      low = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(products.low)));
      high = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(products.high)));
    }
    [[gnu::always_inline]] R times(R value) const {
      const __m256i half = _mm256_set1_epi8(15);
      const __m256i from_low = _mm256_shuffle_epi8(low, _mm256_and_si256((__m256i)value, half));
      const __m256i upper = _mm256_and_si256(_mm256_srli_epi64((__m256i)value, 4), half);
      return (R)_mm256_xor_si256(from_low, _mm256_shuffle_epi8(high, upper));
    }
    __m256i low, high;
  };
};

constexpr GaloisTable table = make_galois<GaloisAvx2>(GaloisLevel::avx2);

}  // namespace

const GaloisTable& avx2_galois() { return table; }

}  // namespace pccl::kernels

#endif
