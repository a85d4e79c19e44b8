#pragma once
// NEON, with what the compiler does not find by itself. An Isa for the templates (see lanes.hpp, also for why
// the namespace is unnamed).

#include <arm_neon.h>

#include "kernels/lanes.hpp"

namespace pccl::kernels {
namespace {

struct Neon {
  static constexpr std::size_t bytes = 16;
  static constexpr std::size_t unrolled = 4;  // a cache line
  using Floats = Register<float, 16>;
  using Words = Register<std::uint32_t, 16>;
  using Halves = Register<std::uint16_t, 8>;

  [[gnu::always_inline]] static Floats widen_half(Halves halves) {
    return (Floats)vcvt_f32_f16((float16x4_t)halves);
  }
  [[gnu::always_inline]] static Halves narrow_half(Floats floats) {
    return (Halves)vcvt_f16_f32((float32x4_t)floats);
  }
  [[gnu::always_inline]] static Words unpack(Halves halves) { return (Words)vmovl_u16((uint16x4_t)halves); }
  [[gnu::always_inline]] static Halves pack(Words words) { return (Halves)vmovn_u32((uint32x4_t)words); }

  // These cores notice long runs of stores by themselves and stop keeping them; the instruction that asks for
  // it (stnp) is a hint.
  template <class R> [[gnu::always_inline]] static void stream(std::byte* to, R value) {
    __builtin_memcpy(to, &value, sizeof(R));
  }
};

}  // namespace
}  // namespace pccl::kernels
