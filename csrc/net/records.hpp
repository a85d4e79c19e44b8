// One direction of an encrypted stream, in records under AES-128-GCM. Each has a number of its own, so that
// none can be changed, left out, repeated or moved. Larger than TLS's, they cost less each, and bytes go from
// where they are to where they belong without a stop in OpenSSL's buffers. Pure but for OpenSSL; owned by one
// thread. A record:
//   header (4): plain bytes; in its highest bit: from here on the next key counts. Ciphertext. Tag (16)
//   key = HMAC-SHA256(secret, "pccl_py key"), 16 bytes; iv = HMAC-SHA256(secret, "pccl_py iv"), 12 bytes
//   the next secret = HMAC-SHA256(secret, "pccl_py next")
//   nonce = iv, its last 8 bytes xor the record's number under this key; the header is authenticated, too
#pragma once
#include <array>
#include <memory>

#include "base/bytes.hpp"
#include "base/sha256.hpp"
#include "net/tls_library.hpp"

namespace pccl::net {

class Records {
 public:
  using Secret = Sha256::Digest;
  enum class Way : std::uint8_t { seal, open };
  static constexpr std::size_t plain_bytes_max = 64u << 10, header_bytes = 4, tag_bytes = 16;
  static constexpr std::size_t overhead = header_bytes + tag_bytes;

  static std::unique_ptr<Records> create(const TlsLibrary& library, const Secret& secret, Way way);
  ~Records();
  Records(const Records&) = delete;

  // One record at `to`. `plain`: 1 to plain_bytes_max, anywhere or already at its place behind the header.
  bool seal(ByteView plain, std::uint8_t* to);
  // How many bytes the record with this header holds; 0: no record begins so.
  static std::size_t plain_bytes(const std::uint8_t* header);
  // Its bytes, to any place, or in place behind the header. False: it is not what was sealed, and what `to`
  // holds then means nothing.
  bool open(const std::uint8_t* record, std::uint8_t* to);

  // Bytes under one key: AES-GCM is good for 2^36 in records of this size; a test wants fewer.
  void renew_key_after(std::uint64_t bytes) { key_bytes_max_ = bytes; }

 private:
  Records(const TlsLibrary& library, const Secret& secret) : library_(library), secret_(secret) {}
  bool take_key(int seals);
  bool next_key();
  bool begin(const std::uint8_t* header);

  const TlsLibrary& library_;
  Secret secret_;
  evp_cipher_ctx_st* context_ = nullptr;
  std::array<std::uint8_t, 12> iv_{};
  std::uint64_t number_ = 0;  // of the next record under this key
  std::uint64_t key_bytes_ = 0, key_bytes_max_ = std::uint64_t{64} << 30;
};

}  // namespace pccl::net
