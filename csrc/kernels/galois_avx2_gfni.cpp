// GF(2^8) on GFNI with AVX2: one instruction. Run only after the CPU has been asked.
#if defined(__x86_64__)

#include "kernels/galois_matrix.hpp"
#include "kernels/isa_avx2.hpp"

namespace pccl::kernels {
namespace {

struct GaloisGfni : Avx2 {
  static constexpr std::size_t sums = 8;
  using Packed = BitMatrix;
  static constexpr EveryFactor<Packed> every{};
  struct Factor {
    using R = Register<std::uint8_t, 32>;
    explicit Factor(Packed packed) {
      for (std::size_t i = 0; i < 32 / sizeof packed.matrix; ++i) matrices[i] = packed.matrix;
    }
    [[gnu::always_inline]] R times(R value) const {
      return (R)_mm256_gf2p8affine_epi64_epi8((__m256i)value, (__m256i)matrices, 0);
    }
    Register<std::uint64_t, 32> matrices;
  };
};

constexpr GaloisTable table = make_galois<GaloisGfni>(GaloisLevel::avx2_gfni);

}  // namespace

const GaloisTable& avx2_gfni_galois() { return table; }

}  // namespace pccl::kernels

#endif
