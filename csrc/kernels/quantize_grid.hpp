#pragma once
// The grid of a block: found from its extremes, and elements <-> units of it. For quantize_kernels.hpp, under
// whose rules this is.

#include <cstddef>
#include <cstdint>

namespace pccl::kernels {
namespace {

template <class T> [[gnu::always_inline]] inline T load(const std::byte* from, std::size_t index = 0) {
  T value;
  __builtin_memcpy(&value, from + index * sizeof(T), sizeof(T));
  return value;
}
template <class T> [[gnu::always_inline]] inline void store(std::byte* to, std::size_t index, T value) {
  __builtin_memcpy(to + index * sizeof(T), &value, sizeof(T));
}

template <class Real> struct Facts;
template <> struct Facts<float> {
  using Bits = std::int32_t;
  static constexpr Bits infinity = 0x7f800000, sizes = 0x7fffffff;
  static constexpr float largest = 0x1.fffffep127f;
  // uint8: from this step on, the range of a block may exceed `largest`.
  static constexpr float wide_step = 0x1p120f;
};
template <> struct Facts<double> {
  using Bits = std::int64_t;
  static constexpr Bits infinity = 0x7ff0000000000000, sizes = 0x7fffffffffffffff;
  static constexpr double largest = 0x1.fffffffffffffp1023;
  static constexpr double wide_step = 0x1p1016;
};
template <class Real> using BitsOf = typename Facts<Real>::Bits;

template <class Real> Real real_of(BitsOf<Real> bits) { return __builtin_bit_cast(Real, bits); }
template <class Real> Real beside(Real positive, int steps) {
  return real_of<Real>(__builtin_bit_cast(BitsOf<Real>, positive) + steps);
}

// --- Extremes. As integers: a maximum of those has one order, and NaNs are above all other values.

template <class Real> struct Extremes {
  Real low, high;
};

// False: not all finite.
template <class Real> bool largest_size(const std::byte* in, std::size_t count, Real& size) {
  using F = Facts<Real>;
  BitsOf<Real> top = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const BitsOf<Real> bits = load<BitsOf<Real>>(in, i) & F::sizes;
    top = bits > top ? bits : top;
  }
  size = real_of<Real>(top);
  return top < F::infinity;
}

// Among integers in the order of the Reals that they stand for; its own inverse. -0 is below +0.
template <class Real> [[gnu::always_inline]] inline BitsOf<Real> ordered(BitsOf<Real> bits) {
  return bits ^ ((bits >> (8 * sizeof(Real) - 1)) & Facts<Real>::sizes);
}

template <class Real> bool find_extremes(const std::byte* in, std::size_t count, Extremes<Real>& found) {
  using F = Facts<Real>;
  BitsOf<Real> low = F::infinity, high = ordered<Real>(F::infinity | ~F::sizes);
  const BitsOf<Real> above_all = low, below_all = high;
  for (std::size_t i = 0; i < count; ++i) {
    const BitsOf<Real> key = ordered<Real>(load<BitsOf<Real>>(in, i));
    low = key < low ? key : low;
    high = key > high ? key : high;
  }
  found = {real_of<Real>(ordered<Real>(low)) + Real{0},
           real_of<Real>(ordered<Real>(high)) + Real{0}};  // no -0
  return low > below_all && high < above_all;
}

// --- Grids.

template <class Real> struct Grid {
  Real minimum = 0, scale = 0;
};

// The step with which `levels` of them reach `extent` and stay finite.
template <class Real> Real covering(Real extent, Real levels) {
  Real step = extent / levels;
  if (step * levels < extent) step = beside(step, 1);
  if (step * levels > Facts<Real>::largest) step = beside(step, -1);
  return step;
}

// What decoding computes: (code * step + offset) * factor. Wide blocks of uint8 are worked on at half their
// size, where nothing overflows.
template <class Real> struct Affine {
  Real step, offset, factor;
};
template <class Real> bool is_wide(Real scale) { return scale >= Facts<Real>::wide_step; }
template <class Real> Affine<Real> affine(const Grid<Real>& grid, Real weight) {
  if (!is_wide(grid.scale)) return {grid.scale, grid.minimum, weight};
  return {grid.scale * Real{0.5}, grid.minimum * Real{0.5}, weight * Real{2}};
}

template <class Real> Real covering_range(Real low, Real high) {
  constexpr Real levels = 255;
  const Real half_range = high * Real{0.5} - low * Real{0.5};
  Real step = half_range / levels >= Facts<Real>::wide_step / 2 ? covering(half_range, levels) * Real{2}
                                                                : covering(high - low, levels);
  const auto reaches = [&] {
    const Affine<Real> a = affine<Real>({low, step}, 1);
    return (levels * a.step + a.offset) * a.factor;
  };
  while (step > 0 && reaches() > Facts<Real>::largest) step = beside(step, -1);
  return step;
}

// --- From elements to units and back.

// A block whose elements are all equal (or zero) has scale 0.
template <class Real>
[[gnu::noinline]] void onto_scale(const std::byte* in, std::size_t count, Real scale, float* units) {
  const Real by = scale == 0 ? Real{1} : scale;
#pragma GCC ivdep
  for (std::size_t i = 0; i < count; ++i) units[i] = static_cast<float>(load<Real>(in, i) / by);
}

template <class Real>
[[gnu::noinline]] void onto_grid(const std::byte* in, std::size_t count, const Grid<Real>& grid,
                                 float* units) {
  const Real half = is_wide(grid.scale) ? Real{0.5} : Real{1};
  const Real minimum = grid.minimum * half;
  const Real by = grid.scale == 0 ? Real{1} : grid.scale * half;
#pragma GCC ivdep
  for (std::size_t i = 0; i < count; ++i) {
    units[i] = static_cast<float>((load<Real>(in, i) * half - minimum) / by);
  }
}

template <class Real, bool has_offset, bool adds>
[[gnu::always_inline]] inline void put_value(float unit, const Affine<Real> by, std::byte* out,
                                             std::size_t i) {
  Real value = static_cast<Real>(unit) * by.step;
  if constexpr (has_offset) value = value + by.offset;
  value = value * by.factor;
  if constexpr (adds) value = load<Real>(out, i) + value;
  store(out, i, value);
}

}  // namespace
}  // namespace pccl::kernels
