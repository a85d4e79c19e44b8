#pragma once
// What the codec should compute, naively, one element at a time; and the data it is tried on. For
// test_quantize.cpp.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/quantize.hpp"
#include "kernels_reference.hpp"

namespace pccl::quantize_check {

using kernels::BlockCode;
using kernels::Codec;
using kernels::Draw;
using kernels::Level;
using kernels_check::Brain;
using kernels_check::Buffer;
using kernels_check::Half;
using kernels_check::Own;
using kernels_check::Random;
using Bytes = std::vector<std::uint8_t>;

constexpr std::array kinds{Quantization::int8, Quantization::uint8, Quantization::int4, Quantization::fp8,
                           Quantization::bf16};

template <class Body> void for_floating(const Body& body) {
  body(DType::float32, Own<float>{});
  body(DType::float64, Own<double>{});
  body(DType::float16, Half{});
  body(DType::bfloat16, Brain{});
}

// --- Data.

enum class Shape { zeros, constant, normal, negative, offset, outlier, subnormal, wide, huge };
inline constexpr std::array shapes{Shape::zeros,     Shape::constant, Shape::normal,
                                   Shape::negative,  Shape::offset,   Shape::outlier,
                                   Shape::subnormal, Shape::wide,     Shape::huge};

template <class E> double smallest_of() {
  if constexpr (std::is_same_v<E, Half>) return 0x1p-24;
  if constexpr (std::is_same_v<E, Brain>) return 0x1p-133;
  return std::numeric_limits<typename E::Acc>::denorm_min();
}
template <class E> double largest_of() {
  if constexpr (std::is_same_v<E, Half>) return 65504;
  if constexpr (std::is_same_v<E, Brain>) return 0x1.fep127;
  return std::numeric_limits<typename E::Acc>::max();
}

inline double uniform(Random& random) {  // -1 to 1
  return static_cast<double>(random.next() >> 11) * 0x1p-52 - 1;
}

template <class E> double sample(Shape shape, std::size_t index, Random& random) {
  const double u = uniform(random);
  switch (shape) {
    case Shape::zeros:
      return random.below(2) == 0 ? 0.0 : -0.0;
    case Shape::constant:
      return 0.1;
    case Shape::normal:
      return u + uniform(random) + uniform(random);
    case Shape::negative:
      return -3 + u;
    case Shape::offset:
      return 1000 + u;
    case Shape::outlier:
      return index % 97 == 5 ? 5000 * (u < 0 ? -1 : 1) : u * 0.01;
    case Shape::subnormal:
      return std::round(u * 700) * smallest_of<E>();
    case Shape::wide:
      return std::ldexp(u, static_cast<int>(random.below(28)) - 14);
    case Shape::huge:
      return (random.below(9) == 0 ? (u < 0 ? -1 : 1) : u) * largest_of<E>();
  }
  return 0;
}

template <class E> std::vector<E> samples(Shape shape, std::size_t count, Random& random) {
  std::vector<E> data(count);
  for (std::size_t i = 0; i < count; ++i) {
    data[i] = E::from(static_cast<typename E::Acc>(sample<E>(shape, i, random)));
  }
  return data;
}

template <class E> std::vector<typename E::Acc> widened(const std::vector<E>& data) {
  std::vector<typename E::Acc> wide;
  for (const E& element : data) wide.push_back(element.acc());
  return wide;
}
// bf16 holds no float64 beyond float32.
template <class E> bool fits(Quantization kind, Shape shape) {
  return kind != Quantization::bf16 || shape != Shape::huge || sizeof(E) < sizeof(double);
}

// --- Codes to try.

inline BlockCode usual(Quantization kind, bool stochastic = false) {
  return {kind, kernels::default_block(kind), stochastic};
}

template <class Body> void for_codes(const Body& body) {
  for (const Quantization kind : kinds) {
    for (const bool stochastic : {false, true}) {
      for (const std::uint32_t block : {32u, kernels::default_block(kind), 1024u}) {
        body(BlockCode{kind, block, stochastic});
      }
    }
  }
}

inline std::string text(const BlockCode& code, DType element, Shape shape) {
  return std::string(name(code.kind)) + " of " + std::string(name(element)) + ", blocks of " +
         std::to_string(code.block) + (code.stochastic ? ", stochastic" : "") + ", shape " +
         std::to_string(static_cast<int>(shape));
}

// --- Scales.

template <class Real> Real covering(Real extent, int levels) {
  Real step = extent / static_cast<Real>(levels);
  const Real infinity = std::numeric_limits<Real>::infinity();
  if (step * static_cast<Real>(levels) < extent) step = std::nextafter(step, infinity);
  if (std::isinf(step * static_cast<Real>(levels))) step = std::nextafter(step, Real{0});
  return step;
}

// The least bfloat16 that is no smaller, and one step less where 7 of it are not finite.
inline float int4_scale(float value) {
  std::uint16_t bits = 0;
  while (kernels::float_from_bfloat16(bits) < value) bits = static_cast<std::uint16_t>(bits + 1);
  if (std::isinf(kernels::float_from_bfloat16(bits) * 7)) bits = static_cast<std::uint16_t>(bits - 1);
  return kernels::float_from_bfloat16(bits);
}

template <class Real> struct Grid {
  Real minimum = 0, scale = 1;
  bool halved() const { return scale >= (sizeof(Real) == 4 ? Real(0x1p120) : Real(0x1p1016)); }
  Real units(Real value, bool has_minimum) const {
    if (!has_minimum) return scale == 0 ? value : value / scale;
    const Real half = halved() ? Real(0.5) : Real(1);
    const Real above = value * half - minimum * half;
    return scale == 0 ? above : above / (scale * half);
  }
  Real value(Real code, bool has_minimum) const {
    if (!has_minimum) return code * scale;
    const Real half = halved() ? Real(0.5) : Real(1);
    return (code * (scale * half) + minimum * half) / half;
  }
};

template <class Real> Grid<Real> grid_of(Quantization kind, const std::vector<Real>& block) {
  Real size = 0;
  for (const Real value : block) size = std::max(size, std::fabs(value));
  if (kind == Quantization::int8) return {0, covering(size, 127)};
  if (kind == Quantization::fp8) return {0, covering(size, 448)};
  if (kind == Quantization::bf16) return {};
  if (kind == Quantization::int4) {
    if constexpr (sizeof(Real) == 8) return {0, covering(size, 7)};
    return {0, int4_scale(static_cast<float>(size) / 7)};
  }
  const Real low = *std::min_element(block.begin(), block.end()) + Real(0);
  const Real high = *std::max_element(block.begin(), block.end()) + Real(0);
  Grid<Real> grid{low, 0};
  grid.scale = covering(high / 2 - low / 2, 255) * 2;
  if (!grid.halved()) grid.scale = covering(high - low, 255);
  while (std::isinf(grid.value(255, true))) grid.scale = std::nextafter(grid.scale, Real{0});
  return grid;
}

// --- Codes.

inline std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Element `index` of the block that begins at `place`: the first half of a block draws the low halves.
inline int noise_of(const Draw& draw, std::uint64_t place, std::uint32_t block, std::uint32_t index) {
  const std::uint64_t key = mixed(mixed(draw.seed) + draw.first_element + place);
  std::uint32_t x = (index % (block / 2)) * 0x9e3779b9u ^ static_cast<std::uint32_t>(key);
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = ((x ^ (x >> 13)) + static_cast<std::uint32_t>(key >> 32)) * 0xc2b2ae35u;
  x ^= x >> 16;
  return static_cast<int>(index < block / 2 ? x & 0xffff : x >> 16);
}

constexpr int nearest = -1;  // instead of noise

inline int whole(double units, int noise, int low, int high) {
  if (noise == nearest) return static_cast<int>(std::nearbyint(units));
  const double sum = std::nearbyint(units * 16384) + noise / 4;
  return std::clamp(static_cast<int>(std::floor(sum / 16384)), low, high);
}

inline double fp8_value(int code) {  // of 0 to 127
  return code < 8 ? std::ldexp(code, -9) : std::ldexp(8 + code % 8, code / 8 - 10);
}

inline int fp8_code(double units, int noise) {
  const double size = std::min(std::fabs(units), 448.0);
  int low = 126;
  while (fp8_value(low) > size) --low;
  const int high = low == 126 ? 126 : low + 1;
  const double part = low == high ? 0 : (size - fp8_value(low)) / (fp8_value(high) - fp8_value(low));
  int code = low;
  if (noise == nearest) {
    code = part > 0.5 || (part == 0.5 && low % 2 != 0) ? high : low;
  } else if (size < 0x1p-6) {
    code = whole(size * 512, noise, 0, 8);
  } else if (part * 0x1p20 + 8 + 16.0 * noise >= 0x1p20) {
    code = high;
  }
  return code | (std::signbit(units) ? 128 : 0);
}

inline int bfloat16_code(float value, int noise) {
  std::uint32_t code = kernels::bfloat16_from_float(value);
  if (noise != nearest)
    code = (std::bit_cast<std::uint32_t>(value) + static_cast<std::uint32_t>(noise)) >> 16;
  return static_cast<int>((code & 0x7fff) == 0x7f80 ? code - 1 : code);
}

inline int code_of(Quantization kind, float units, int noise) {
  switch (kind) {
    case Quantization::int8:
      return whole(units, noise, -127, 127);
    case Quantization::uint8:
      return whole(units, noise, 0, 255);
    case Quantization::int4:
      return whole(units, noise, -7, 7);
    case Quantization::fp8:
      return fp8_code(units, noise);
    default:
      return bfloat16_code(units, noise);
  }
}

inline float value_of_code(Quantization kind, int code) {
  if (kind == Quantization::bf16) return kernels::float_from_bfloat16(static_cast<std::uint16_t>(code));
  if (kind != Quantization::fp8) return static_cast<float>(code);
  const auto size = static_cast<float>(fp8_value(code & 127));
  return (code & 128) != 0 ? -size : size;
}

// --- Encodings, and what they decode to.

template <class Real> struct Expected {
  Bytes bytes;
  std::vector<Real> values;
};

template <class T> void append(Bytes& bytes, T value) {
  const auto* from = reinterpret_cast<const std::uint8_t*>(&value);
  bytes.insert(bytes.end(), from, from + sizeof(T));
}

template <class Real> void append_header(Bytes& bytes, Quantization kind, const Grid<Real>& grid) {
  if (kind == Quantization::bf16) return;
  if (kind == Quantization::uint8) append(bytes, grid.minimum);
  if (kind == Quantization::int4 && sizeof(Real) == 4) {
    append(bytes, kernels::bfloat16_from_float(static_cast<float>(grid.scale)));
  } else {
    append(bytes, grid.scale);
  }
}

inline void append_codes(Bytes& bytes, Quantization kind, const std::vector<int>& codes) {
  for (std::size_t i = 0; i < codes.size(); ++i) {
    if (kind == Quantization::bf16) {
      append(bytes, static_cast<std::uint16_t>(codes[i]));
    } else if (kind != Quantization::int4) {
      append(bytes, static_cast<std::uint8_t>(codes[i]));
    } else if (i % 2 == 0) {
      append(bytes, static_cast<std::uint8_t>(codes[i] & 15));
    } else {
      bytes.back() = static_cast<std::uint8_t>(bytes.back() | (codes[i] & 15) << 4);
    }
  }
}

template <class Real>
Expected<Real> expected_of(const BlockCode& code, const std::vector<Real>& data, const Draw& draw) {
  const std::uint32_t block = code.kind == Quantization::bf16 ? 256 : code.block;
  const bool has_minimum = code.kind == Quantization::uint8;
  Expected<Real> expected;
  for (std::size_t first = 0; first < data.size(); first += block) {
    const std::size_t count = std::min<std::size_t>(block, data.size() - first);
    const auto begin = data.begin() + static_cast<std::ptrdiff_t>(first);
    const std::vector<Real> values(begin, begin + static_cast<std::ptrdiff_t>(count));
    const Grid<Real> grid = grid_of(code.kind, values);
    std::vector<int> codes;
    for (std::uint32_t i = 0; i < count; ++i) {
      const int noise = code.stochastic ? noise_of(draw, first, block, i) : nearest;
      codes.push_back(code_of(code.kind, static_cast<float>(grid.units(values[i], has_minimum)), noise));
      const auto units = static_cast<Real>(value_of_code(code.kind, codes.back()));
      expected.values.push_back(grid.value(units, has_minimum));
    }
    append_header(expected.bytes, code.kind, grid);
    append_codes(expected.bytes, code.kind, codes);
  }
  return expected;
}

// --- Bounds of quantize.hpp, worked out from the data.

// The quantum of `value` in a block with these extremes.
inline double quantum(Quantization kind, bool is_double, double low, double high, double value) {
  const double size = std::max(std::fabs(low), std::fabs(high));
  const double least = is_double ? std::numeric_limits<double>::denorm_min() : 0x1p-149;
  switch (kind) {
    case Quantization::int8:
      return size / 127 + least;
    case Quantization::uint8:
      return high / 255 - low / 255 + least;
    case Quantization::int4:
      return is_double ? size / 7 + least : size / 7 * (1 + 0x1p-7) + 0x1p-133;
    case Quantization::fp8: {
      const double scale = is_double ? covering(size, 448) : covering(static_cast<float>(size), 448);
      if (scale == 0) return 0;
      const double units = std::fabs(value) / scale;
      return units < 0x1p-6 ? 0x1p-9 * scale : std::ldexp(scale, std::ilogb(units) - 3);
    }
    default:
      return value == 0 ? 0 : std::ldexp(1, std::max(std::ilogb(value), -126) - 7);
  }
}

}  // namespace pccl::quantize_check
