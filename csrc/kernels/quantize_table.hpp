#pragma once
// The table of codec kernels that each instruction set fills. Between quantize.cpp and quantize_*.cpp only.

#include <cstddef>
#include <cstdint>

#include "kernels/quantize.hpp"

namespace pccl::kernels {

// Elements and sums are Reals: float or double.
struct EncodeJob {
  std::byte* out;
  const std::byte* in;
  std::size_t count;
  std::size_t block;
  Draw draw;
};
struct DecodeJob {
  std::byte* out;
  const std::byte* in;
  std::size_t count;
  std::size_t block;
  double weight;
};

struct CodecKernels {
  bool (*encode[2])(const EncodeJob&);  // [stochastic]
  void (*decode[2])(const DecodeJob&);  // [adds]
  std::size_t header_bytes;
  std::size_t code_bits;
};

struct CodecTable {
  CodecKernels of[2][last_of<Quantization> - 1];  // [double instead of float][kind - int8]
};

const CodecTable& scalar_codecs();
#if defined(__x86_64__)
const CodecTable& avx2_codecs();
const CodecTable& avx512_codecs();
#endif

}  // namespace pccl::kernels
