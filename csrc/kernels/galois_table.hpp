#pragma once
// The table of Galois-field kernels that each instruction set fills. Between galois.cpp and galois_*.cpp
// only.

#include "kernels/galois.hpp"
#include "kernels/table.hpp"

namespace pccl::kernels {

struct GaloisTable {
  GaloisLevel level;
  Kernel add;           // incoming + own
  Kernel multiply_add;  // incoming + own_factor * own
  Kernel mix;           // incoming_factor * incoming + own_factor * own
  Kernel multiply;      // incoming_factor * incoming
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
