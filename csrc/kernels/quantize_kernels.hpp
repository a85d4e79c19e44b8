#pragma once
// The codec's kernels: one text of plain loops that the compiler makes vectors of, once per instruction set
// (quantize_*.cpp). Equal bits, since every operation on an element is one IEEE operation or an integer one:
// no sums over lanes, no contraction, no conversion that rounds otherwise than to nearest even. Unnamed
// namespace, nothing of the standard library: see lanes.hpp.
//
// A block passes through the first-level cache: fit (its grid, from its extremes), onto_grid (elements ->
// units of the grid, float32), round (units -> codes); back by expand or unit_of (codes -> units) and
// put_value.

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/half.hpp"
#include "kernels/quantize_grid.hpp"
#include "kernels/quantize_table.hpp"

namespace pccl::kernels {
namespace {

// --- Noise for stochastic rounding: 16 bits per element, from a hash of the draw and the element's place.

[[gnu::always_inline]] inline std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// One hash serves two elements half a block apart.
[[gnu::noinline]] void make_noise(std::uint64_t key, std::size_t half_block, std::uint16_t* noise) {
  const auto low = static_cast<std::uint32_t>(key);
  const auto high = static_cast<std::uint32_t>(key >> 32);
  std::uint16_t* const second = noise + half_block;
#pragma GCC ivdep
  for (std::size_t i = 0; i < half_block; ++i) {
    std::uint32_t x = (static_cast<std::uint32_t>(i) * 0x9e3779b9u) ^ low;
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = ((x ^ (x >> 13)) + high) * 0xc2b2ae35u;
    x ^= x >> 16;
    noise[i] = static_cast<std::uint16_t>(x);
    second[i] = static_cast<std::uint16_t>(x >> 16);
  }
}

// --- Kinds: units <-> codes.

// Comparisons are of integers, and choices between results of floats by masks: what might trap in one branch
// only keeps the compiler from making vectors.

[[gnu::always_inline]] inline std::uint32_t all_if_negative(std::int32_t value) {
  return static_cast<std::uint32_t>(value >> 31);
}

// Added to a number below 2^22, this leaves it in the low bits, rounded to nearest even, in two's complement.
constexpr float to_integer = 0x1.8p23f;
constexpr int noise_bits = 14;  // stochastic: the whole units of 2^14 * units + noise

template <bool stochastic>
[[gnu::always_inline]] inline std::int32_t rounded(float units, std::uint32_t noise, int lowest,
                                                   int highest) {
  if constexpr (!stochastic) return static_cast<std::int32_t>(bits_of(units + to_integer));
  // A grid that was rounded down lets the extremes stick out by less than half a unit, which the nearest code
  // absorbs; noise would carry them beyond.
  constexpr std::int32_t one = 1 << noise_bits;
  const std::uint32_t whole = bits_of(units * static_cast<float>(one) + to_integer) - bits_of(to_integer);
  std::int32_t sum = static_cast<std::int32_t>(whole + (noise >> (16 - noise_bits)));
  sum = sum < lowest * one ? lowest * one : sum;
  sum = sum >= (highest + 1) * one ? (highest + 1) * one - 1 : sum;
  return sum >> noise_bits;
}

template <bool stochastic, int lowest, int highest>
[[gnu::always_inline]] inline void round_to_bytes(const float* units, const std::uint16_t* noise,
                                                  std::size_t count, std::uint8_t* codes) {
#pragma GCC ivdep
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t draw = stochastic ? noise[i] : 0;
    codes[i] = static_cast<std::uint8_t>(rounded<stochastic>(units[i], draw, lowest, highest));
  }
}

struct Int8 {
  static constexpr bool has_minimum = false;
  static constexpr std::size_t code_bits = 8;
  template <class Real> static constexpr std::size_t header_bytes = sizeof(Real);

  template <class Real> static bool fit(const std::byte* in, std::size_t count, Grid<Real>& grid) {
    Real size;
    const bool finite = largest_size(in, count, size);
    grid.scale = covering<Real>(size, 127);
    return finite;
  }
  template <bool stochastic>
  [[gnu::noinline]] static void round(const float* units, const std::uint16_t* noise, std::size_t count,
                                      std::byte* out) {
    round_to_bytes<stochastic, -127, 127>(units, noise, count, reinterpret_cast<std::uint8_t*>(out));
  }
  [[gnu::always_inline]] static float unit_of(const std::byte* in, std::size_t i) {
    return static_cast<float>(load<std::int8_t>(in, i));
  }
};

struct UInt8 {
  static constexpr bool has_minimum = true;
  static constexpr std::size_t code_bits = 8;
  template <class Real> static constexpr std::size_t header_bytes = 2 * sizeof(Real);

  template <class Real> static bool fit(const std::byte* in, std::size_t count, Grid<Real>& grid) {
    Extremes<Real> extremes;
    if (!find_extremes(in, count, extremes)) return false;
    grid = {extremes.low, covering_range(extremes.low, extremes.high)};
    return true;
  }
  template <bool stochastic>
  [[gnu::noinline]] static void round(const float* units, const std::uint16_t* noise, std::size_t count,
                                      std::byte* out) {
    round_to_bytes<stochastic, 0, 255>(units, noise, count, reinterpret_cast<std::uint8_t*>(out));
  }
  [[gnu::always_inline]] static float unit_of(const std::byte* in, std::size_t i) {
    return static_cast<float>(load<std::uint8_t>(in, i));
  }
};

struct Int4 {
  static constexpr bool has_minimum = false;
  static constexpr std::size_t code_bits = 4;
  template <class Real>
  static constexpr std::size_t header_bytes = std::is_same_v<Real, float> ? 2 : sizeof(Real);

  template <class Real> static bool fit(const std::byte* in, std::size_t count, Grid<Real>& grid) {
    Real size;
    const bool finite = largest_size(in, count, size);
    if constexpr (std::is_same_v<Real, float>) {
      std::uint32_t upper = (bits_of(size / 7) + 0xffffu) >> 16;
      if (float_of(upper << 16) * 7 > Facts<float>::largest) --upper;
      grid.scale = float_of(upper << 16);
    } else {
      grid.scale = covering<Real>(size, 7);
    }
    return finite;
  }
  // An odd last element shares its byte with a zero.
  template <bool stochastic>
  [[gnu::noinline]] static void round(const float* units, const std::uint16_t* noise, std::size_t count,
                                      std::byte* out) {
    alignas(64) std::uint8_t codes[quantization_block_max];
    round_to_bytes<stochastic, -7, 7>(units, noise, count, codes);
    if (count % 2 != 0) codes[count] = 0;
    const auto* from = reinterpret_cast<const std::byte*>(codes);
    const std::size_t pairs = (count + 1) / 2;
#pragma GCC ivdep
    for (std::size_t i = 0; i < pairs; ++i) {
      const std::uint32_t pair = load<std::uint16_t>(from, i);
      store(out, i, static_cast<std::uint8_t>((pair & 15u) | (pair >> 8 << 4)));
    }
  }
  [[gnu::noinline]] static void expand(const std::byte* in, std::size_t count, float* units) {
    alignas(64) std::byte codes[quantization_block_max];
    const std::size_t pairs = (count + 1) / 2;
#pragma GCC ivdep
    for (std::size_t i = 0; i < pairs; ++i) {
      const std::uint32_t pair = load<std::uint8_t>(in, i);
      store(codes, i, static_cast<std::uint16_t>((pair | pair << 4) & 0x0f0fu));
    }
#pragma GCC ivdep
    for (std::size_t i = 0; i < count; ++i) {
      const auto code = static_cast<std::int8_t>((load<std::uint8_t>(codes, i) ^ 8u) - 8u);
      units[i] = static_cast<float>(code);
    }
  }
};

// 1 sign, 4 exponent, 3 fraction bits; the exponent's bias is 7; subnormals; the largest value is 448.
struct Fp8 {
  static constexpr bool has_minimum = false;
  static constexpr std::size_t code_bits = 8;
  template <class Real> static constexpr std::size_t header_bytes = sizeof(Real);
  static constexpr float smallest_normal = 0x1p-6f, subnormal_step = 0x1p-9f;
  static constexpr std::uint32_t rebias = 120u << 3;  // from float32's 127, above 3 fraction bits

  template <class Real> static bool fit(const std::byte* in, std::size_t count, Grid<Real>& grid) {
    Real size;
    const bool finite = largest_size(in, count, size);
    grid.scale = covering<Real>(size, 448);
    return finite;
  }
  template <bool stochastic>
  [[gnu::always_inline]] static std::uint32_t code_of(float unit, std::uint32_t noise) {
    const auto least_normal = static_cast<std::int32_t>(bits_of(smallest_normal));
    const auto most = static_cast<std::int32_t>(bits_of(448.0f));
    const auto size = static_cast<std::int32_t>(bits_of(unit) & 0x7fffffffu);
    const auto bits = static_cast<std::uint32_t>(size > most ? most : size);
    // The 20 dropped bits meet 16 of noise, above 4 that only round.
    const std::uint32_t carry = stochastic ? (noise << 4) + 8u : 0x7ffffu + ((bits >> 20) & 1u);
    const std::uint32_t normal = ((bits + carry) >> 20) - rebias;
    const auto subnormal =
        static_cast<std::uint32_t>(rounded<stochastic>(float_of(bits) * (1 / subnormal_step), noise, 0, 8));
    const std::uint32_t code = normal ^ ((normal ^ subnormal) & all_if_negative(size - least_normal));
    return (code & 0x7fu) | ((bits_of(unit) >> 24) & 0x80u);
  }
  template <bool stochastic>
  [[gnu::noinline]] static void round(const float* units, const std::uint16_t* noise, std::size_t count,
                                      std::byte* out) {
#pragma GCC ivdep
    for (std::size_t i = 0; i < count; ++i) {
      store(out, i, static_cast<std::uint8_t>(code_of<stochastic>(units[i], stochastic ? noise[i] : 0)));
    }
  }
  [[gnu::noinline]] static void expand(const std::byte* in, std::size_t count, float* units) {
#pragma GCC ivdep
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint32_t code = load<std::uint8_t>(in, i);
      // A subnormal borrows the implicit one of the normal numbers and returns it.
      const std::uint32_t subnormal = all_if_negative(static_cast<std::int32_t>(code & 0x78u) - 1);
      const std::uint32_t normal = (((code & 0x7fu) + rebias) << 20) + (subnormal & (1u << 23));
      const float size = float_of(normal) - float_of(subnormal & bits_of(smallest_normal));
      units[i] = float_of(bits_of(size) | (code & 0x80u) << 24);
    }
  }
};

// No grid: the units are the elements, rounded to float32 first.
struct BF16 {
  static constexpr bool has_minimum = false;
  static constexpr std::size_t code_bits = 16;
  template <class Real> static constexpr std::size_t header_bytes = 0;

  template <class Real> static bool fit(const std::byte* in, std::size_t count, Grid<Real>& grid) {
    Real size;
    const bool finite = largest_size(in, count, size);
    grid.scale = 1;
    return finite && size <= static_cast<Real>(Facts<float>::largest);
  }
  template <bool stochastic>
  [[gnu::noinline]] static void round(const float* units, const std::uint16_t* noise, std::size_t count,
                                      std::byte* out) {
#pragma GCC ivdep
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint32_t bits = bits_of(units[i]);
      const std::uint32_t carry = stochastic ? noise[i] : 0x7fffu + ((bits >> 16) & 1u);
      const std::uint32_t code = (bits + carry) >> 16;
      const std::uint32_t infinite = (code & 0x7fffu) == 0x7f80u ? 1u : 0u;  // the largest value instead
      store(out, i, static_cast<std::uint16_t>(code - infinite));
    }
  }
  [[gnu::always_inline]] static float unit_of(const std::byte* in, std::size_t i) {
    return float_of(static_cast<std::uint32_t>(load<std::uint16_t>(in, i)) << 16);
  }
};

// --- Headers.

template <class Kind, class Real> void store_header(std::byte* out, const Grid<Real>& grid) {
  constexpr std::size_t bytes = Kind::template header_bytes<Real>;
  if constexpr (Kind::has_minimum) store(out, 0, grid.minimum);
  if constexpr (bytes == 2) {
    store(out, 0, static_cast<std::uint16_t>(bits_of(grid.scale) >> 16));
  } else if constexpr (bytes > 0) {
    store(out, Kind::has_minimum ? 1 : 0, grid.scale);
  }
}

template <class Kind, class Real> Grid<Real> load_header(const std::byte* in) {
  constexpr std::size_t bytes = Kind::template header_bytes<Real>;
  if constexpr (Kind::has_minimum) return {load<Real>(in, 0), load<Real>(in, 1)};
  if constexpr (bytes == 2) return {0, float_from_bfloat16(load<std::uint16_t>(in))};
  if constexpr (bytes == sizeof(Real)) return {0, load<Real>(in)};
  return {0, 1};
}

constexpr std::size_t bytes_of_codes(std::size_t count, std::size_t bits) { return (count * bits + 7) / 8; }

// --- Whole ranges, block by block.

// onto_scale and round in one.
template <class Real>
[[gnu::noinline]] void round_scaled_to_bytes(const std::byte* in, std::size_t count, Real scale,
                                             std::byte* out) {
  const Real by = scale == 0 ? Real{1} : scale;
#pragma GCC ivdep
  for (std::size_t i = 0; i < count; ++i) {
    const auto unit = static_cast<float>(load<Real>(in, i) / by);
    store(out, i, static_cast<std::uint8_t>(rounded<false>(unit, 0, -127, 127)));
  }
}

template <class Kind, class Real, bool stochastic> bool encode(const EncodeJob& job) {
  constexpr bool at_once = std::is_same_v<Kind, Int8> && !stochastic;
  alignas(64) float units[quantization_block_max];
  alignas(64) std::uint16_t noise[stochastic ? quantization_block_max : 1];
  std::byte* out = job.out;
  for (std::size_t first = 0; first < job.count; first += job.block) {
    const std::size_t count = job.count - first < job.block ? job.count - first : job.block;
    const std::byte* const in = job.in + first * sizeof(Real);
    Grid<Real> grid;
    if (!Kind::template fit<Real>(in, count, grid)) return false;
    store_header<Kind>(out, grid);
    if constexpr (Kind::has_minimum) {
      onto_grid(in, count, grid, units);
    } else if constexpr (!at_once) {
      onto_scale(in, count, grid.scale, units);
    }
    const std::uint64_t place = job.draw.first_element + first;
    if constexpr (stochastic) make_noise(mixed(mixed(job.draw.seed) + place), job.block / 2, noise);
    out += Kind::template header_bytes<Real>;
    if constexpr (at_once) {
      round_scaled_to_bytes(in, count, grid.scale, out);
    } else {
      Kind::template round<stochastic>(units, noise, count, out);
    }
    out += bytes_of_codes(count, Kind::code_bits);
  }
  return true;
}

// Kinds whose codes are units as they stand need no scratch for these.
template <class Kind>
constexpr bool is_direct = requires(const std::byte* in) { Kind::unit_of(in, std::size_t{0}); };

template <class Kind, class Real, bool adds>
[[gnu::noinline]] void decode_block(const std::byte* in, std::size_t count, const Affine<Real> by,
                                    std::byte* out) {
  if constexpr (is_direct<Kind>) {
#pragma GCC ivdep
    for (std::size_t i = 0; i < count; ++i)
      put_value<Real, Kind::has_minimum, adds>(Kind::unit_of(in, i), by, out, i);
  } else {
    alignas(64) float units[quantization_block_max];
    Kind::expand(in, count, units);
#pragma GCC ivdep
    for (std::size_t i = 0; i < count; ++i) put_value<Real, Kind::has_minimum, adds>(units[i], by, out, i);
  }
}

template <class Kind, class Real, bool adds> void decode(const DecodeJob& job) {
  const std::byte* in = job.in;
  for (std::size_t first = 0; first < job.count; first += job.block) {
    const std::size_t count = job.count - first < job.block ? job.count - first : job.block;
    const Grid<Real> grid = load_header<Kind, Real>(in);
    in += Kind::template header_bytes<Real>;
    const auto weight = static_cast<Real>(job.weight);
    const Affine<Real> by = Kind::has_minimum ? affine(grid, weight) : Affine<Real>{grid.scale, 0, weight};
    decode_block<Kind, Real, adds>(in, count, by, job.out + first * sizeof(Real));
    in += bytes_of_codes(count, Kind::code_bits);
  }
}

template <class Kind, class Real> constexpr CodecKernels codec_kernels() {
  return {
      .encode = {encode<Kind, Real, false>, encode<Kind, Real, true>},
      .decode = {decode<Kind, Real, false>, decode<Kind, Real, true>},
      .header_bytes = Kind::template header_bytes<Real>,
      .code_bits = Kind::code_bits,
  };
}

constexpr CodecTable make_codecs() {
  return {{{codec_kernels<Int8, float>(), codec_kernels<UInt8, float>(), codec_kernels<Int4, float>(),
            codec_kernels<Fp8, float>(), codec_kernels<BF16, float>()},
           {codec_kernels<Int8, double>(), codec_kernels<UInt8, double>(), codec_kernels<Int4, double>(),
            codec_kernels<Fp8, double>(), codec_kernels<BF16, double>()}}};
}

}  // namespace
}  // namespace pccl::kernels
