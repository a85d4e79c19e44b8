// CRC-32 on the architecture's baseline: by tables.

#include "kernels/crc32_tail.hpp"

namespace pccl::kernels {
namespace {

template <Crc32Polynomial polynomial> struct ByTables {
  static std::uint32_t update(std::uint32_t state, const std::byte* at, std::size_t bytes) {
    return update_by_tables<polynomial>(state, at, bytes);
  }
  static std::uint32_t copy(std::uint32_t state, std::byte* to, const std::byte* from, std::size_t bytes) {
    return copy_in_pieces(state, to, from, bytes, update);
  }
  static constexpr auto stream = copy;
};

}  // namespace

const Crc32Table& scalar_crc32(Crc32Polynomial polynomial) {
  return table_of<ByTables, Crc32Level::scalar>(polynomial);
}

}  // namespace pccl::kernels
