#pragma once
// AVX2 and F16C. An Isa for the templates (see lanes.hpp, also for why the namespace is
// unnamed).

#include <immintrin.h>

#include "kernels/lanes.hpp"

namespace pccl::kernels {
namespace {

struct Avx2 {
  static constexpr std::size_t bytes = 32;
  static constexpr std::size_t unrolled = 2;
  using Floats = Register<float, 32>;
  using Words = Register<std::uint32_t, 32>;
  using Halves = Register<std::uint16_t, 16>;

  [[gnu::always_inline]] static Floats widen_half(Halves halves) {
    return (Floats)_mm256_cvtph_ps((__m128i)halves);
  }
  [[gnu::always_inline]] static Halves narrow_half(Floats floats) {
    return (Halves)_mm256_cvtps_ph((__m256)floats, _MM_FROUND_TO_NEAREST_INT);
  }
  [[gnu::always_inline]] static Words unpack(Halves halves) {
    return (Words)_mm256_cvtepu16_epi32((__m128i)halves);
  }
  [[gnu::always_inline]] static Halves pack(Words words) {
    const __m256i twice = _mm256_packus_epi32((__m256i)words, (__m256i)words);  // within each half
    return (Halves)_mm256_castsi256_si128(_mm256_permute4x64_epi64(twice, 0b1000));
  }

  template <class R> [[gnu::always_inline]] static void stream(std::byte* to, R value) {
    if constexpr (sizeof(R) == 32)
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)value);
    else
      _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)value);
  }
};

}  // namespace
}  // namespace pccl::kernels
