// CRC-32 on the architecture's baseline: by tables.

#include "kernels/crc32_tail.hpp"

namespace pccl::kernels {
namespace {

std::uint32_t copy(std::uint32_t state, std::byte* to, const std::byte* from, std::size_t bytes) {
  return copy_in_pieces(state, to, from, bytes, update_by_tables);
}

constexpr Crc32Table table{.level = Crc32Level::scalar, .update = update_by_tables, .copy = copy};

}  // namespace

const Crc32Table& scalar_crc32() { return table; }

}  // namespace pccl::kernels
