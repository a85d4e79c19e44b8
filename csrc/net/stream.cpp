#include "net/stream.hpp"

#include <sys/socket.h>

#include <cerrno>

namespace pccl::net {

void Stream::secure(std::unique_ptr<Tls> tls, ByteView unsent, ByteView received) {
  tls_ = std::move(tls);
  tls_->put_plain(unsent);
  tls_->arrived_now(received);
}

ssize_t Stream::receive(iovec* parts, int count) {
  if (tls_ != nullptr) return receive_sealed(parts, count);
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = static_cast<std::size_t>(count);
  const auto got = ::recvmsg(fd_, &message, 0);
  if (got > 0) bytes_in_ += static_cast<std::uint64_t>(got);
  return got;
}

ssize_t Stream::send(iovec* parts, int count) {
  if (tls_ != nullptr) return send_sealed(parts, count);
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = static_cast<std::size_t>(count);
  const auto sent = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
  if (sent > 0) bytes_out_ += static_cast<std::uint64_t>(sent);
  return sent;
}

ssize_t Stream::broken(Error why) {
  error_ = std::move(why);
  errno = EPROTO;
  return -1;
}

// -1 with EAGAIN: nothing yet.
ssize_t Stream::opened(iovec* parts, int count) {
  if (!tls_->done()) {
    const auto done = tls_->handshake();
    if (!done) return broken(done.error());
    if (!done.value()) return errno = EAGAIN, -1;
  }
  const auto got = tls_->open(parts, count);
  if (!got) return broken(got.error());
  if (got.value() == 0) return errno = EAGAIN, -1;
  return static_cast<ssize_t>(got.value());
}

ssize_t Stream::receive_sealed(iovec* parts, int count) {
  for (;;) {
    const auto got = opened(parts, count);
    if (got > 0 || errno != EAGAIN) return got;
    if (std::exchange(came_all_, false)) return errno = EAGAIN, -1;
    const auto room = tls_->room();
    const auto came = ::recv(fd_, room.iov_base, room.iov_len, 0);
    if (came <= 0) return came;
    tls_->arrived(static_cast<std::size_t>(came));
    bytes_in_ += static_cast<std::uint64_t>(came);
    came_all_ = static_cast<std::size_t>(came) < room.iov_len;
  }
}

// 0: all of it is out.
ssize_t Stream::write_out() {
  while (!tls_->output().empty()) {
    const auto output = tls_->output();
    const auto sent = ::send(fd_, output.data(), output.size(), MSG_NOSIGNAL);
    if (sent < 0) return -1;
    tls_->sent(static_cast<std::size_t>(sent));
    bytes_out_ += static_cast<std::uint64_t>(sent);
    if (static_cast<std::size_t>(sent) < output.size()) return errno = EAGAIN, -1;
  }
  return 0;
}

ssize_t Stream::send_sealed(iovec* parts, int count) {
  if (write_out() < 0) return -1;
  if (!tls_->done()) return 0;
  const auto sealed = tls_->seal(parts, count);
  if (!sealed) return broken(sealed.error());
  if (write_out() < 0 && errno != EAGAIN && errno != EINTR) return -1;
  return static_cast<ssize_t>(sealed.value());
}

}  // namespace pccl::net
