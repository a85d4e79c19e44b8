// CRC-32 by VPCLMULQDQ on AVX-512, 64 bytes at a time. Run only after the CPU has been asked.
#if defined(__x86_64__)

#include "kernels/crc32_fold.hpp"

namespace pccl::kernels {
namespace {

[[gnu::always_inline]] inline __m512i fold(__m512i value, __m512i by, __m512i onto) {
  const __m512i first = _mm512_clmulepi64_epi128(value, by, 0x00);
  const __m512i second = _mm512_clmulepi64_epi128(value, by, 0x11);
  return _mm512_ternarylogic_epi64(first, second, onto, 0x96);  // exclusive or of the three
}
[[gnu::always_inline]] inline __m512i wide(const Factors& by) {
  return _mm512_maskz_broadcast_i64x2(0xff, vector_of(by));
}
template <bool copies>
[[gnu::always_inline]] inline __m512i take(const Stream<copies>& stream, std::size_t at) {
  const __m512i value = _mm512_loadu_si512(stream.from + at);
  if constexpr (copies) _mm512_storeu_si512(stream.to + at, value);
  return value;
}
template <int part> [[gnu::always_inline]] inline __m128i quarter(__m512i value) {
  return _mm512_maskz_extracti64x2_epi64(0x3, value, part);
}

// Four registers, each folded onto the 64 bytes 256 further on.
template <bool copies> std::uint32_t sum(std::uint32_t state, Stream<copies> stream) {
  if (stream.bytes < 256) return sum_short(state, stream);
  const __m512i by256 = wide(factors(256)), by64 = wide(factors(64));
  const __m128i by16 = vector_of(factors(16));
  const __m512i before = _mm512_zextsi128_si512(_mm_cvtsi32_si128(static_cast<int>(state)));
  __m512i a = _mm512_xor_si512(take(stream, 0), before);
  __m512i b = take(stream, 64), c = take(stream, 128), d = take(stream, 192);
  for (stream.advance(256); stream.bytes >= 256; stream.advance(256)) {
    a = fold(a, by256, take(stream, 0));
    b = fold(b, by256, take(stream, 64));
    c = fold(c, by256, take(stream, 128));
    d = fold(d, by256, take(stream, 192));
  }
  a = fold(fold(fold(a, by64, b), by64, c), by64, d);
  for (; stream.bytes >= 64; stream.advance(64)) a = fold(a, by64, take(stream, 0));
  const __m128i front = fold(fold(quarter<0>(a), by16, quarter<1>(a)), by16, quarter<2>(a));
  return fold_rest(fold(front, by16, quarter<3>(a)), stream);
}

std::uint32_t update(std::uint32_t state, const std::byte* at, std::size_t bytes) {
  return sum(state, Stream<false>{at, nullptr, bytes});
}

std::uint32_t copy(std::uint32_t state, std::byte* to, const std::byte* from, std::size_t bytes) {
  return sum(state, Stream<true>{from, to, bytes});
}

constexpr Crc32Table table{.level = Crc32Level::vpclmul, .update = update, .copy = copy};

}  // namespace

const Crc32Table& vpclmul_crc32() { return table; }

}  // namespace pccl::kernels

#endif
