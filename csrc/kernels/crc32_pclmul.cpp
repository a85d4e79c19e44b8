// CRC-32 by PCLMULQDQ, 16 bytes at a time. Run only after the CPU has been asked.
#if defined(__x86_64__)

#include "kernels/crc32_fold.hpp"

namespace pccl::kernels {
namespace {

template <Crc32Polynomial polynomial> struct Pclmul : ByFolding<Pclmul<polynomial>> {
  template <Copies copies> static std::uint32_t of(std::uint32_t state, Stream<copies> stream) {
    return sum_short<polynomial>(state, stream);
  }
};

}  // namespace

const Crc32Table& pclmul_crc32(Crc32Polynomial polynomial) {
  return table_of<Pclmul, Crc32Level::pclmul>(polynomial);
}

}  // namespace pccl::kernels

#endif
