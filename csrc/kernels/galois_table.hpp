#pragma once
// The table of Galois-field kernels that each instruction set fills. Between galois.cpp and galois_*.cpp
// only.

#include "kernels/galois.hpp"
#include "kernels/table.hpp"

namespace pccl::kernels {

// One pass over the sources. It never fences its streaming stores.
struct EncodeJob {
  std::byte* const* targets = nullptr;
  const std::byte* const* sources = nullptr;
  const std::uint8_t* factors = nullptr;  // of target t and source s: factors[t * stride + s]
  std::size_t stride = 0;
  std::size_t targets_count = 0;  // 1 to encode_targets_max
  std::size_t sources_count = 0;  // 1 to encode_sources_max
  std::size_t bytes = 0;
  bool streaming = false;
  bool adds = false;
};
inline constexpr std::size_t encode_targets_max = 6;
inline constexpr std::size_t encode_sources_max = 64;  // their factors wait on the stack

struct GaloisTable {
  GaloisLevel level;
  Kernel add;           // incoming + own
  Kernel multiply_add;  // incoming + own_factor * own
  Kernel mix;           // incoming_factor * incoming + own_factor * own
  Kernel multiply;      // incoming_factor * incoming
  void (*encode)(const EncodeJob&);
};

const GaloisTable& scalar_galois();
#if defined(__x86_64__)
const GaloisTable& avx2_galois();
const GaloisTable& avx512_galois();
const GaloisTable& avx2_gfni_galois();
const GaloisTable& avx512_gfni_galois();
#elif defined(__aarch64__)
const GaloisTable& neon_galois();
#endif

}  // namespace pccl::kernels
