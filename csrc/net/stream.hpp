// What a connection reads from and writes to: its socket as it is, or what encrypts it (tls.hpp) once the
// greeting has said so. Without a secret it adds one look at a pointer to each system call. Owned by the
// connection's thread.
#pragma once
#include <sys/types.h>
#include <sys/uio.h>

#include "net/tls.hpp"

namespace pccl::net {

class Stream {
 public:
  explicit Stream(int fd) : fd_(fd) {}

  // From here on everything is encrypted, but for `unsent`, which goes out first; `received` is what came
  // behind the greeting.
  void secure(std::unique_ptr<Tls> tls, ByteView unsent, ByteView received);
  bool secured() const { return tls_ != nullptr; }
  bool established() const { return tls_ != nullptr && tls_->done(); }  // both sides hold the secret

  // As recvmsg() and sendmsg() return; errno is EPROTO where error() says what is wrong. A stream that is
  // being secured gives nothing and takes nothing.
  ssize_t receive(iovec* parts, int count);
  ssize_t send(iovec* parts, int count);
  const Error& error() const { return error_; }

  // All that there was has been received: the poller tells when there is more.
  bool drained(ssize_t got, std::size_t asked) const {
    return tls_ == nullptr ? static_cast<std::size_t>(got) < asked : false;
  }
  // Encrypted, and not taken by the kernel yet.
  bool unsent() const { return tls_ != nullptr && !tls_->output().empty(); }
  std::uint64_t bytes_in() const { return bytes_in_; }  // as they travel
  std::uint64_t bytes_out() const { return bytes_out_; }

 private:
  ssize_t receive_sealed(iovec* parts, int count);
  ssize_t send_sealed(iovec* parts, int count);
  ssize_t opened(iovec* parts, int count);
  ssize_t write_out();
  ssize_t broken(Error why);

  int fd_;
  std::unique_ptr<Tls> tls_;
  Error error_;
  bool came_all_ = false;  // the kernel had less than was asked for
  std::uint64_t bytes_in_ = 0, bytes_out_ = 0;
};

}  // namespace pccl::net
