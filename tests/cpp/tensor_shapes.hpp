// Shapes of tensors, drawn from a seed, and what there is to count about them.
#pragma once
#include <vector>

#include "base/rng.hpp"
#include "collective/layout.hpp"

namespace pccl::check {

using Shapes = std::vector<TensorShape>;

inline std::uint64_t bytes_of(const Shapes& shapes) {
  std::uint64_t bytes = 0;
  for (const auto& shape : shapes) bytes += shape.count * size_of(shape.dtype);
  return bytes;
}

inline Shapes random_shapes(Rng& rng, std::uint64_t elements_max) {
  Shapes shapes(rng.chance(0.4) ? 1 : rng.below(6));
  for (auto& shape : shapes) {
    shape.dtype = static_cast<DType>(1 + rng.below(dtypes_count));
    shape.count = rng.chance(0.3) ? rng.below(12) : rng.below(elements_max);
  }
  return shapes;
}

inline bool is_half(DType dtype) { return accumulator_of(dtype) != dtype; }

}  // namespace pccl::check
