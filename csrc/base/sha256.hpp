// SHA-256 (FIPS 180-4) and HMAC-SHA256 (RFC 2104), for handshakes: short inputs, where speed does not matter.
#pragma once
#include <array>
#include <cstdint>

#include "base/bytes.hpp"

namespace pccl {

class Sha256 {
 public:
  static constexpr std::size_t digest_bytes = 32;
  static constexpr std::size_t block_bytes = 64;
  using Digest = std::array<std::uint8_t, digest_bytes>;

  Sha256& update(ByteView data);
  Digest finish();  // once; the object is used up

 private:
  void compress(const std::uint8_t* block);

  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, block_bytes> block_{};
  std::uint64_t bytes_ = 0;
};

Sha256::Digest sha256(ByteView data);
Sha256::Digest hmac_sha256(ByteView key, ByteView data);

// Takes the same time wherever the two differ, so that nobody learns a digest byte by byte.
bool equal_in_constant_time(ByteView a, ByteView b);

}  // namespace pccl
