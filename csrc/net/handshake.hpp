// The first bytes of a connection, as a machine of bytes in and bytes out: who is there, which version,
// whether the run has a secret and what it does. Pure: no socket, no clock, and the nonce comes from outside.
//
// Both sides send 32 bytes at once: "PCCLpy\r\n", version (2), flags (1), five zeros, nonce (16). Without a
// secret that is all, and frames may follow without waiting. With one that encrypts a handshake of TLS 1.3
// follows, under a key of this connection alone (tls.hpp):
//   key = HMAC-SHA256(secret, "pccl_py tls" + dialler's 32 bytes + acceptor's 32 bytes)
// With one that does not, each side sends 32 bytes that prove it: first the dialler, and when the acceptor
// has checked them, the acceptor (32 zeros where they are wrong); then frames follow as they are:
//   proof = HMAC-SHA256(secret, "pccl_py proof" + side + dialler's 32 bytes + acceptor's 32 bytes)
// Both are bound to both nonces, versions and flags: whoever changes one of them on the way, or does not know
// the secret, ends the connection before a frame is sent. What a secret does is never negotiated: each side
// goes by what it was told itself, and refuses another. The dialler shows a digest that depends on the
// secret: who can be dialled in place of an acceptor may guess by it, so a secret has to be random.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "base/sha256.hpp"

namespace pccl::net {

enum class Side : std::uint8_t { dialler = 1, acceptor = 2 };

using Nonce = std::array<std::uint8_t, 16>;
Result<Nonce> random_nonce();  // from the kernel; never the same twice

// Of a run: what all who belong to it know, and whether it also encrypts or proves who is there and no more.
struct Secret {
  Secret() = default;
  Secret(Bytes known, bool encrypt = true) : bytes(std::move(known)), encrypts(encrypt && !bytes.empty()) {}

  bool empty() const { return bytes.empty(); }  // none

  Bytes bytes;
  bool encrypts = false;
};

class Handshake {
 public:
  Handshake(Side side, std::uint16_t version, Secret secret, const Nonce& nonce);

  // What is to be sent now, before any frame; sent() drops what is gone.
  ByteView output() const { return {out_.data() + out_begin_, out_end_ - out_begin_}; }
  void sent(std::size_t bytes) { out_begin_ += bytes; }

  // How many of the bytes belonged to the handshake; the rest is frames. Errors: connect (somebody else),
  // version, authentication, protocol. After an error output() may still hold
  // what the other side needs in order to know why.
  Result<std::size_t> on_bytes(ByteView in);
  bool done() const { return state_ == State::done; }
  // Frames may be sent behind output(): at once without a secret, else when the other side has proved that it
  // knows it. Never where it encrypts: TLS follows, and they go inside it.
  bool may_send_frames() const {
    return secret_.empty() ? state_ != State::failed : done() && !secret_.encrypts;
  }
  bool encrypts() const { return secret_.encrypts; }
  Side side() const { return side_; }
  Sha256::Digest key() const;  // of what follows; once done()
  // Why it is no connection, where the stream ended before done().
  Error on_end() const;

 private:
  static constexpr std::size_t block_bytes = 32;
  using Block = std::array<std::uint8_t, block_bytes>;
  enum class State : std::uint8_t { greeting, proof, done, failed };

  Error on_greeting();
  Error check_flags() const;
  Error on_proof();
  bool looks_right() const;
  Error stranger() const;
  Sha256::Digest digest(std::string_view label) const;
  Sha256::Digest proof_of(Side side) const;
  void put(ByteView block);

  Side side_;
  State state_ = State::greeting;
  Secret secret_;
  Block mine_{}, theirs_{};
  Block in_{};  // the block being received
  std::size_t in_bytes_ = 0;
  std::array<std::uint8_t, 2 * block_bytes> out_{};
  std::size_t out_begin_ = 0, out_end_ = 0;
};

}  // namespace pccl::net
