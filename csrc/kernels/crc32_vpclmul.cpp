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
// Of what is read once, beside a copy that goes past the caches.
constexpr std::size_t ahead_bytes = 1024;

template <Copies copies>
[[gnu::always_inline]] inline __m512i take(const Stream<copies>& stream, std::size_t at) {
  const __m512i value = _mm512_loadu_si512(stream.from + at);
  if constexpr (copies == Copies::cached) _mm512_storeu_si512(stream.to + at, value);
  if constexpr (copies == Copies::streamed) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(stream.to + at), value);
    __builtin_prefetch(stream.from + at + ahead_bytes);
  }
  return value;
}
template <int part> [[gnu::always_inline]] inline __m128i quarter(__m512i value) {
  return _mm512_maskz_extracti64x2_epi64(0x3, value, part);
}

// Four registers, each folded onto the 64 bytes 256 further on.
template <Crc32Polynomial polynomial, Copies copies>
std::uint32_t sum(std::uint32_t state, Stream<copies> stream) {
  if (stream.bytes < 256) return sum_short<polynomial>(state, stream);
  const __m512i by256 = wide(factors(polynomial, 256)), by64 = wide(factors(polynomial, 64));
  const __m128i by16 = vector_of(factors(polynomial, 16));
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
  return fold_rest<polynomial>(fold(front, by16, quarter<3>(a)), stream);
}

template <Crc32Polynomial polynomial> struct Vpclmul : ByFolding<Vpclmul<polynomial>> {
  template <Copies copies> static std::uint32_t of(std::uint32_t state, Stream<copies> stream) {
    return sum<polynomial>(state, stream);
  }
};

}  // namespace

const Crc32Table& vpclmul_crc32(Crc32Polynomial polynomial) {
  return table_of<Vpclmul, Crc32Level::vpclmul>(polynomial);
}

}  // namespace pccl::kernels

#endif
