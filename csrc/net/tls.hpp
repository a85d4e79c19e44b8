// What encrypts one connection, as a machine of bytes in and bytes out. It begins with a handshake of
// TLS 1.3: who does not hold the same key gets no further than its first message, on either side. No
// certificates: a pre-shared key, fresh for each connection (handshake.hpp), with an ephemeral Diffie-Hellman
// exchange beside it, so that a secret that is stolen later opens no recorded stream. What follows are
// records (records.hpp) under keys that TLS exports from the handshake (RFC 8446, 7.5), one for each
// direction. An end of the stream is not authenticated: here it always counts as a loss. Owned by one thread;
// pure but for OpenSSL.
#pragma once
#include <sys/uio.h>

#include <memory>

#include "base/bytes.hpp"
#include "base/sha256.hpp"
#include "net/handshake.hpp"
#include "net/records.hpp"
#include "net/tls_library.hpp"

namespace pccl::net {

class Tls {
 public:
  using Key = Sha256::Digest;
  // Whether it can be had in this process. Errors: usage.
  static Error available();
  // Errors: usage, internal.
  static Result<std::unique_ptr<Tls>> create(Side side, const Key& key);
  ~Tls();
  Tls(const Tls&) = delete;

  // What came from the other side. Only when the last call of handshake() or open() could use no more.
  iovec room();
  void arrived(std::size_t bytes) { in_end_ += bytes; }
  std::size_t arrived_now(ByteView bytes);  // the same, copied; how many fitted

  // What is to be sent; sent() drops what is gone.
  ByteView output() const { return {out_.get() + out_begin_, out_end_ - out_begin_}; }
  void sent(std::size_t bytes);
  void put_plain(ByteView bytes);  // ahead of all that is encrypted: few bytes, before the first handshake()

  // True: both sides hold the key. Errors: authentication, protocol; output() may then hold what tells the
  // other side.
  Result<bool> handshake();
  bool done() const { return done_; }

  // Decrypts what has come into the parts; 0: more has to come first. Errors: protocol. Of the parts more may
  // have been written than it says: what a record held that was changed on its way.
  Result<std::size_t> open(const iovec* parts, int count);
  // Encrypts as much of the parts as output() holds; it takes something whenever output() is empty.
  Result<std::size_t> seal(const iovec* parts, int count);

  void renew_key_after(std::uint64_t bytes) { seals_->renew_key_after(bytes); }  // once done()

 private:
  friend struct TlsCallbacks;
  // In: about one read. Out: what one write takes, and messages of the handshake beside it. Memory that was
  // never used costs nothing.
  static constexpr std::size_t in_bytes = 256u << 10, out_spare = 8u << 10;
  static constexpr std::size_t out_bytes = 4 * (Records::plain_bytes_max + Records::overhead);
  static constexpr std::size_t handshake_bytes_max = 8u << 10;

  Tls(const TlsLibrary& library, Side side, const Key& key) : library_(library), side_(side), key_(key) {}
  Error failed(const char* what);
  Error begin_records();
  std::size_t next_record() const;
  std::size_t take_opened(iovec& part);

  const TlsLibrary& library_;
  Side side_;
  Key key_;
  ssl_st* ssl_ = nullptr;  // until it is done
  std::unique_ptr<Records> seals_, opens_;
  std::unique_ptr<std::uint8_t[]> in_ = std::make_unique_for_overwrite<std::uint8_t[]>(in_bytes);
  std::unique_ptr<std::uint8_t[]> out_ =
      std::make_unique_for_overwrite<std::uint8_t[]>(out_bytes + out_spare);
  std::size_t in_begin_ = 0, in_end_ = 0, out_begin_ = 0, out_end_ = 0;
  std::size_t opened_bytes_ = 0;  // at in_begin_: already decrypted, because there was no room for all of it
  std::size_t handshake_bytes_ = 0;
  Error error_;  // told by the next call, after what was good
  bool done_ = false;
};

}  // namespace pccl::net
