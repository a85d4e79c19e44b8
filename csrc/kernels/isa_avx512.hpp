#pragma once
// AVX-512 (F, BW, DQ, VL). An Isa for the templates (see lanes.hpp, also for why the namespace is
// unnamed).

#include <immintrin.h>

#include "kernels/lanes.hpp"

namespace pccl::kernels {
namespace {

struct Avx512 {
  static constexpr std::size_t bytes = 64;
  static constexpr std::size_t unrolled = 2;
  using Floats = Register<float, 64>;
  using Words = Register<std::uint32_t, 64>;
  using Halves = Register<std::uint16_t, 32>;

  // With a full mask: the forms without one warn of an uninitialized register in some compilers' headers.
  [[gnu::always_inline]] static Floats widen_half(Halves halves) {
    return (Floats)_mm512_maskz_cvtph_ps(0xffff, (__m256i)halves);
  }
  [[gnu::always_inline]] static Halves narrow_half(Floats floats) {
    return (Halves)_mm512_maskz_cvtps_ph(0xffff, (__m512)floats, _MM_FROUND_TO_NEAREST_INT);
  }
  [[gnu::always_inline]] static Words unpack(Halves halves) {
    return (Words)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)halves);
  }
  [[gnu::always_inline]] static Halves pack(Words words) {
    return (Halves)_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)words);
  }

  template <class R> [[gnu::always_inline]] static void stream(std::byte* to, R value) {
    if constexpr (sizeof(R) == 64)
      _mm512_stream_si512(reinterpret_cast<__m512i*>(to), (__m512i)value);
    else
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)value);
  }
};

}  // namespace
}  // namespace pccl::kernels
