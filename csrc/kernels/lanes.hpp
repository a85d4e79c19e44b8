#pragma once
// Vector registers and what memory holds, for the templates of reduce_kernels.hpp: on the compiler's vector
// types, so that one text serves every width. Like all that reduce_*.cpp include, it is in an unnamed
// namespace and calls nothing of the standard library: a template or inline function with external linkage,
// compiled for a newer CPU, could be the copy that the linker keeps for everybody.
//
// An Isa (isa_*.hpp) has: `bytes` of a register, `unrolled` (registers per round of a loop), widen_half and
// narrow_half (float16 <-> float32 registers), unpack and pack (uint16 <-> uint32 lanes below 2^16), stream
// (non-temporal store to an aligned address).

#include <cstddef>
#include <cstdint>

#include "kernels/half.hpp"

namespace pccl::kernels {
namespace {

template <class T, std::size_t bytes> struct RegisterOf {
  typedef T Type __attribute__((vector_size(bytes)));
  typedef T InMemory __attribute__((vector_size(bytes), aligned(1), may_alias));  // any address, any type
};
template <class T, std::size_t bytes> using Register = typename RegisterOf<T, bytes>::Type;

template <class T> constexpr bool floating = static_cast<T>(0.5) != 0;

template <class T> struct BitsOf;  // the lane type of comparisons and bit operations
template <> struct BitsOf<float> {
  using Type = std::int32_t;
};
template <> struct BitsOf<double> {
  using Type = std::int64_t;
};

// What memory holds (Raw) and in what it is computed (Acc).

template <class T> struct Plain {
  using Raw = T;
  using Acc = T;
  template <class Isa>
  [[gnu::always_inline]] static Register<T, Isa::bytes> widen(Register<T, Isa::bytes> raw) {
    return raw;
  }
  template <class Isa>
  [[gnu::always_inline]] static Register<T, Isa::bytes> narrow(Register<T, Isa::bytes> acc) {
    return acc;
  }
};

struct Float16 {
  using Raw = std::uint16_t;
  using Acc = float;
  template <class Isa>
  [[gnu::always_inline]] static Register<float, Isa::bytes> widen(Register<Raw, Isa::bytes / 2> raw) {
    return Isa::widen_half(raw);
  }
  template <class Isa>
  [[gnu::always_inline]] static Register<Raw, Isa::bytes / 2> narrow(Register<float, Isa::bytes> acc) {
    return Isa::narrow_half(acc);
  }
};

struct BFloat16 {
  using Raw = std::uint16_t;
  using Acc = float;
  template <class Isa>
  [[gnu::always_inline]] static Register<float, Isa::bytes> widen(Register<Raw, Isa::bytes / 2> raw) {
    return (Register<float, Isa::bytes>)(Isa::unpack(raw) << 16);
  }
  // To nearest even by carry. A NaN that got here is canonical (see quiet()): no carry can reach its
  // exponent.
  template <class Isa>
  [[gnu::always_inline]] static Register<Raw, Isa::bytes / 2> narrow(Register<float, Isa::bytes> acc) {
    const auto bits = (Register<std::uint32_t, Isa::bytes>)acc;
    return Isa::pack((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
};

}  // namespace
}  // namespace pccl::kernels
