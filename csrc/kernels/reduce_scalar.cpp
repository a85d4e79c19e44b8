// The kernels on the architecture's baseline: SSE2 on x86-64, NEON on aarch64.

#include "kernels/reduce_kernels.hpp"

#if defined(__x86_64__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace pccl::kernels {
namespace {

struct Scalar {
  static constexpr std::size_t bytes = 16;
  using Floats = Register<float, 16>;
  using Words = Register<std::uint32_t, 16>;
  using Halves = Register<std::uint16_t, 8>;

  static Words unpack(Halves halves) { return __builtin_convertvector(halves, Words); }
  static Halves pack(Words words) { return __builtin_convertvector(words, Halves); }

#if defined(__aarch64__)
  static Floats widen_half(Halves halves) { return (Floats)vcvt_f32_f16((float16x4_t)halves); }
  static Halves narrow_half(Floats floats) { return (Halves)vcvt_f16_f32((float32x4_t)floats); }
#else
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
#endif

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

constexpr Table table = make_table<Scalar>(Level::scalar);

}  // namespace

const Table& scalar_table() { return table; }

}  // namespace pccl::kernels
