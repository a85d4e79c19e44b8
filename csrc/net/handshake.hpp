// The first bytes of a connection, as a machine of bytes in and bytes out: who is there, which version, and,
// where the run has a secret, that both know it. Pure: no socket, no clock, and the nonce comes from outside.
//
// Both sides send 32 bytes at once: "PCCLpy\r\n", version (2), flags (1), five zeros, nonce (16). Without a
// secret that is all, and frames may follow without waiting. With a secret the dialler then proves that it
// knows it, the acceptor checks and only then proves the same (so that scanning a port yields nothing to
// guess the secret from):
//   proof = HMAC-SHA256(secret, "pccl_py proof" + side + dialler's 32 bytes + acceptor's 32 bytes)
// It is bound to both nonces, versions and flags and to the side, so that neither a reflected nor an old
// proof passes. An acceptor that refuses sends 32 zeros. The proof authenticates the start, not every later
// byte: that is the work of a stream transform (TLS), which would sit between the socket and this machine, or
// be keyed by the same secret.
#pragma once
#include <array>
#include <cstdint>
#include <string>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "base/sha256.hpp"

namespace pccl::net {

enum class Side : std::uint8_t { dialler = 1, acceptor = 2 };

using Nonce = std::array<std::uint8_t, 16>;
Result<Nonce> random_nonce();  // from the kernel; never the same twice

class Handshake {
 public:
  // An empty secret: none.
  Handshake(Side side, std::uint16_t version, Bytes secret, const Nonce& nonce);

  // What is to be sent now, before any frame; sent() drops what is gone.
  ByteView output() const { return {out_.data() + out_begin_, out_end_ - out_begin_}; }
  void sent(std::size_t bytes) { out_begin_ += bytes; }

  // How many of the bytes belonged to the handshake; the rest is frames. Errors: connect (somebody else),
  // version, authentication, protocol. After an error output() may still hold what the other side needs in
  // order to know why.
  Result<std::size_t> on_bytes(ByteView in);
  bool done() const { return state_ == State::done; }
  // Frames may be sent behind output(): at once without a secret, else when the other side has proved that it
  // knows it.
  bool may_send_frames() const { return secret_.empty() ? state_ != State::failed : done(); }
  // Why it is no connection, where the stream ended before done().
  Error on_end() const;

 private:
  static constexpr std::size_t block_bytes = 32;
  using Block = std::array<std::uint8_t, block_bytes>;
  enum class State : std::uint8_t { preamble, proof, done, failed };

  Error on_preamble();
  Error on_proof();
  bool looks_right() const;
  Error stranger() const;
  Sha256::Digest proof_of(Side side) const;
  void put(ByteView block);

  Side side_;
  State state_ = State::preamble;
  Bytes secret_;
  Block mine_{}, theirs_{};
  Block in_{};  // the block being received
  std::size_t in_bytes_ = 0;
  std::array<std::uint8_t, 2 * block_bytes> out_{};
  std::size_t out_begin_ = 0, out_end_ = 0;
};

}  // namespace pccl::net
