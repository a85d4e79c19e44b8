// GF(2^8) on GFNI with AVX-512: one instruction. Run only after the CPU has been asked.
#if defined(__x86_64__)

#include "kernels/galois_matrix.hpp"
#include "kernels/isa_avx512.hpp"

namespace pccl::kernels {
namespace {

struct GaloisGfni : Avx512 {
  static constexpr std::size_t sums = 16;
  using Packed = BitMatrix;
  static constexpr EveryFactor<Packed> every{};
  struct Factor {
    using R = Register<std::uint8_t, 64>;
    explicit Factor(Packed packed) {
      for (std::size_t i = 0; i < 64 / sizeof packed.matrix; ++i) matrices[i] = packed.matrix;
    }
    [[gnu::always_inline]] R times(R value) const {
      return (R)_mm512_gf2p8affine_epi64_epi8((__m512i)value, (__m512i)matrices, 0);
    }
    Register<std::uint64_t, 64> matrices;
  };
};

constexpr GaloisTable table = make_galois<GaloisGfni>(GaloisLevel::avx512_gfni);

}  // namespace

const GaloisTable& avx512_gfni_galois() { return table; }

}  // namespace pccl::kernels

#endif
