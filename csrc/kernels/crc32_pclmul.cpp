// CRC-32 by PCLMULQDQ, 16 bytes at a time. Run only after the CPU has been asked.
#if defined(__x86_64__)

#include "kernels/crc32_fold.hpp"

namespace pccl::kernels {
namespace {

std::uint32_t update(std::uint32_t state, const std::byte* at, std::size_t bytes) {
  return sum_short(state, Stream<false>{at, nullptr, bytes});
}

std::uint32_t copy(std::uint32_t state, std::byte* to, const std::byte* from, std::size_t bytes) {
  return sum_short(state, Stream<true>{from, to, bytes});
}

constexpr Crc32Table table{.level = Crc32Level::pclmul, .update = update, .copy = copy};

}  // namespace

const Crc32Table& pclmul_crc32() { return table; }

}  // namespace pccl::kernels

#endif
