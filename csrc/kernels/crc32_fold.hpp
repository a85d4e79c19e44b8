#pragma once
// CRC-32 by folding: a register of bytes is moved towards the front of the message, modulo the polynomial, by
// two multiplications without carries, and added to what lies there. The end is left to tables. For files
// compiled for PCLMULQDQ. Unnamed namespace: see lanes.hpp.

#include <immintrin.h>

#include "kernels/crc32_tail.hpp"

namespace pccl::kernels {
namespace {

struct Factors {
  std::uint64_t first, second;  // of the first and the last 8 bytes of 16
};
consteval Factors factors(Crc32Polynomial polynomial, std::uint64_t distance_bytes) {
  return {crc32_math::fold_factor(polynomial, 8 * distance_bytes + 64),
          crc32_math::fold_factor(polynomial, 8 * distance_bytes)};
}

[[gnu::always_inline]] inline __m128i load(const std::byte* at) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
}
[[gnu::always_inline]] inline void store(std::byte* at, __m128i value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(at), value);
}
[[gnu::always_inline]] inline __m128i vector_of(const Factors& by) {
  return _mm_set_epi64x(static_cast<long long>(by.second), static_cast<long long>(by.first));
}

[[gnu::always_inline]] inline __m128i fold(__m128i value, __m128i by, __m128i onto) {
  const __m128i moved =
      _mm_xor_si128(_mm_clmulepi64_si128(value, by, 0x00), _mm_clmulepi64_si128(value, by, 0x11));
  return _mm_xor_si128(moved, onto);
}

// What becomes of the bytes that are summed: nothing, or a copy, in the caches or past them.
enum class Copies : std::uint8_t { none, cached, streamed };

// What is before a kernel: bytes to sum. Streamed ones go to multiples of 64.
template <Copies copies> struct Stream {
  const std::byte* from;
  std::byte* to;
  std::size_t bytes;
  [[gnu::always_inline]] void advance(std::size_t by) {
    from += by;
    if constexpr (copies != Copies::none) to += by;
    bytes -= by;
  }
  [[gnu::always_inline]] __m128i take(std::size_t at) const {
    const __m128i value = load(from + at);
    if constexpr (copies == Copies::cached) store(to + at, value);
    if constexpr (copies == Copies::streamed) _mm_stream_si128(reinterpret_cast<__m128i*>(to + at), value);
    return value;
  }
};

template <Crc32Polynomial polynomial, Copies copies>
[[gnu::always_inline]] inline std::uint32_t sum_last(std::uint32_t state, Stream<copies> stream) {
  if (stream.bytes == 0) return state;  // of no memory at all, perhaps: memcpy() wants some even so
  if constexpr (copies != Copies::none) {
    std::memcpy(stream.to, stream.from, stream.bytes);
    return update_by_tables<polynomial>(state, stream.to, stream.bytes);
  }
  return update_by_tables<polynomial>(state, stream.from, stream.bytes);
}

// `value` stands for all bytes before the stream.
template <Crc32Polynomial polynomial, Copies copies>
[[gnu::always_inline]] inline std::uint32_t fold_rest(__m128i value, Stream<copies> stream) {
  const __m128i by16 = vector_of(factors(polynomial, 16));
  for (; stream.bytes >= 16; stream.advance(16)) value = fold(value, by16, stream.take(0));
  alignas(16) std::byte last[16];
  store(last, value);
  return sum_last<polynomial>(update_by_tables<polynomial>(0, last, sizeof last), stream);
}

// At least 64 bytes: four registers, each folded onto the 16 bytes 64 further on.
template <Crc32Polynomial polynomial, Copies copies>
[[gnu::always_inline]] inline std::uint32_t fold_by_64(std::uint32_t state, Stream<copies> stream) {
  const __m128i by64 = vector_of(factors(polynomial, 64)), by16 = vector_of(factors(polynomial, 16));
  __m128i a = _mm_xor_si128(stream.take(0), _mm_cvtsi32_si128(static_cast<int>(state)));
  __m128i b = stream.take(16), c = stream.take(32), d = stream.take(48);
  for (stream.advance(64); stream.bytes >= 64; stream.advance(64)) {
    a = fold(a, by64, stream.take(0));
    b = fold(b, by64, stream.take(16));
    c = fold(c, by64, stream.take(32));
    d = fold(d, by64, stream.take(48));
  }
  return fold_rest<polynomial>(fold(fold(fold(a, by16, b), by16, c), by16, d), stream);
}

template <Crc32Polynomial polynomial, Copies copies>
[[gnu::always_inline]] inline std::uint32_t sum_short(std::uint32_t state, Stream<copies> stream) {
  if (stream.bytes >= 64) return fold_by_64<polynomial>(state, stream);
  return sum_last<polynomial>(state, stream);
}

// The functions of a Crc32Table from a Sum<polynomial>, whose of(state, stream) does the work.
template <class Sum> struct ByFolding {
  static std::uint32_t update(std::uint32_t state, const std::byte* at, std::size_t bytes) {
    return Sum::of(state, Stream<Copies::none>{at, nullptr, bytes});
  }
  static std::uint32_t copy(std::uint32_t state, std::byte* to, const std::byte* from, std::size_t bytes) {
    return Sum::of(state, Stream<Copies::cached>{from, to, bytes});
  }
  static std::uint32_t stream(std::uint32_t state, std::byte* to, const std::byte* from, std::size_t bytes) {
    return Sum::of(state, Stream<Copies::streamed>{from, to, bytes});
  }
};

}  // namespace
}  // namespace pccl::kernels
