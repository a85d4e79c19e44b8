#pragma once
// The table of kernels that each instruction set fills. Between dispatch.cpp and reduce_*.cpp only.

#include <cstddef>

#include "kernels/reduce.hpp"

namespace pccl::kernels {

// One pass over memory. A kernel reads what it needs of it; it never fences its streaming stores.
struct Job {
  std::byte* out = nullptr;
  const std::byte* incoming = nullptr;
  const std::byte* own = nullptr;
  std::byte* keep = nullptr;  // always streamed to
  std::size_t count = 0;
  double factor = 1.0;
  double divisor = 1.0;
  bool streaming = false;                            // to out
  std::uint8_t incoming_factor = 1, own_factor = 1;  // of GF(2^8): galois.hpp
};
using Kernel = void (*)(const Job&);

// at[incoming wire][out wire]; types that are their own accumulator fill [0][0] only.
struct Wired {
  Kernel at[2][2];
};

// Null where dispatch.cpp composes the function from others.
struct ElementKernels {
  Wired sum, prod, min, max;
  Wired weighted;                       // these three: floating types only
  Wired average, weighted_average;      // with the division
  Kernel sum_keep[2], average_keep[2];  // [incoming wire], to elements
  Kernel divide[2];                     // [in wire], to elements
  Kernel widen;                         // elements times factor, to accumulators; floating types only
};

struct Table {
  Level level;
  ElementKernels of[dtypes_count];  // by DType - 1
  void (*stream_copy)(std::byte* to, const std::byte* from, std::size_t bytes);
};

const Table& scalar_table();
#if defined(__x86_64__)
const Table& avx2_table();
const Table& avx512_table();
#elif defined(__aarch64__)
const Table& neon_table();
#endif

}  // namespace pccl::kernels
