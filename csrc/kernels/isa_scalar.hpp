#pragma once
// The architecture's baseline: SSE2 on x86-64; NEON on aarch64, as far as the compiler finds vector
// instructions by itself. An Isa for the templates (see lanes.hpp, also for why the namespace is
// unnamed).

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include "kernels/lanes.hpp"

namespace pccl::kernels {
namespace {

struct Scalar {
  static constexpr std::size_t bytes = 16;
  static constexpr std::size_t unrolled = 2;
  using Floats = Register<float, 16>;
  using Words = Register<std::uint32_t, 16>;
  using Halves = Register<std::uint16_t, 8>;

  [[gnu::always_inline]] static Words unpack(Halves halves) { return __builtin_convertvector(halves, Words); }
  [[gnu::always_inline]] static Halves pack(Words words) { return __builtin_convertvector(words, Halves); }

  [[gnu::noinline]] static Floats widen_half(Halves halves) {
    Floats floats;
    for (int i = 0; i < 4; ++i) floats[i] = float_from_half(halves[i]);
    return floats;
  }
  [[gnu::noinline]] static Halves narrow_half(Floats floats) {
    Halves halves;
    for (int i = 0; i < 4; ++i) halves[i] = half_from_float(floats[i]);
    return halves;
  }

  template <class R> [[gnu::always_inline]] static void stream(std::byte* to, R value) {
#if defined(__x86_64__)
    if constexpr (sizeof(R) == 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)value);
      return;
    }
#endif
    __builtin_memcpy(to, &value, sizeof(R));
  }
};

}  // namespace
}  // namespace pccl::kernels
