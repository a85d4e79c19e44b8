#pragma once
// Whether all of a buffer's values are finite: one pass at the speed of memory, on the caller's thread.

#include <cstddef>

#include "base/dtype.hpp"
#include "base/quantization.hpp"

namespace pccl::kernels {

// Integers are. With `kind`: whether all can be encoded, which for bf16 excludes what exceeds float32.
bool all_finite(DType element, const void* data, std::size_t count, Quantization kind = Quantization::none);

}  // namespace pccl::kernels
