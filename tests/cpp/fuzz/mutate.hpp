// Small changes of bytes, of the kinds that decoders trip over.
#pragma once
#include <vector>

#include "base/bytes.hpp"
#include "base/rng.hpp"

namespace pccl::fuzz {

inline constexpr std::size_t input_bytes_max = 4096;

// `other`: an input that parts are taken of. `words`: numbers that decoders have compared something with.
Bytes mutate(Bytes bytes, ByteView other, const std::vector<std::uint64_t>& words, Rng& rng);

}  // namespace pccl::fuzz
