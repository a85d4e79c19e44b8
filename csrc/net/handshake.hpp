// The first bytes of a connection, as a machine of bytes in and bytes out: who is there, which version, and
// whether the run has a secret. Pure: no socket, no clock, and the nonce comes from outside.
//
// Both sides send 32 bytes at once: "PCCLpy\r\n", version (2), flags (1), five zeros, nonce (16). Without a
// secret that is all, and frames may follow without waiting. With a secret TLS 1.3 follows on both sides,
// under a key of this connection alone:
//   key = HMAC-SHA256(secret, "pccl_py tls" + dialler's 32 bytes + acceptor's 32 bytes)
// It is bound to both nonces, versions and flags: whoever changes one of them on the way, or does not know
// the secret, ends the connection before a frame is sent. The dialler's first message shows a digest that
// depends on the secret: who can be dialled in place of an acceptor may guess by it, so a secret has to be
// random.
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
  ByteView output() const { return {mine_.data() + out_begin_, block_bytes - out_begin_}; }
  void sent(std::size_t bytes) { out_begin_ += bytes; }

  // How many of the bytes belonged to the handshake; the rest is frames. Errors: connect (somebody else),
  // version, authentication (only one side has a secret), protocol. After an error output() may still hold
  // what the other side needs in order to know why.
  Result<std::size_t> on_bytes(ByteView in);
  bool done() const { return state_ == State::done; }
  // Frames may be sent behind output(), at once. Never with a secret: TLS follows, and they go inside it.
  bool may_send_frames() const { return !has_secret() && state_ != State::failed; }
  bool has_secret() const { return !secret_.empty(); }
  Side side() const { return side_; }
  Sha256::Digest key() const;  // of what follows; once done()
  // Why it is no connection, where the stream ended before done().
  Error on_end() const;

 private:
  static constexpr std::size_t block_bytes = 32;
  using Block = std::array<std::uint8_t, block_bytes>;
  enum class State : std::uint8_t { greeting, done, failed };

  Error on_greeting();
  bool looks_right() const;
  Error stranger() const;

  Side side_;
  State state_ = State::greeting;
  Bytes secret_;
  Block mine_{}, theirs_{};
  Block in_{};  // the block being received
  std::size_t in_bytes_ = 0;
  std::size_t out_begin_ = 0;  // of mine_
};

}  // namespace pccl::net
