// CRC-32C (Castagnoli), as iSCSI and SCTP have it: by the processor's instruction where it has one.
#pragma once
#include "base/bytes.hpp"

namespace pccl {

// Of the bytes, or of what came before and them: crc32c(b, crc32c(a)) is that of a and b together.
std::uint32_t crc32c(ByteView bytes, std::uint32_t before = 0);
std::uint32_t crc32c_by_table(ByteView bytes, std::uint32_t before = 0);  // the same, everywhere

}  // namespace pccl
