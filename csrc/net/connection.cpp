#include "net/connection.hpp"

#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace pccl::net {
namespace {

constexpr std::size_t write_bytes_max = 1u << 20;  // one system call's share
constexpr int write_parts_max = 128;

}  // namespace

Connection::Connection(Socket socket, Handshake handshake, std::string remote, Handler& handler)
    : socket_(std::move(socket)),
      fd_(socket_.fd()),
      stream_(fd_),
      handshake_(std::move(handshake)),
      remote_(std::move(remote)),
      handler_(handler) {}

void Connection::send_message(ByteView body) {
  if (!open_ || draining_) return;
  if (body.size() > limits::message_bytes_max)
    return fail(ErrorCode::internal,
                "a message of " + std::to_string(body.size()) + " bytes is too large to be sent");
  outbox_.push_message(body);
}

void Connection::send_payload(wire::FrameKind kind, ByteView head, const void* payload, std::size_t bytes,
                              std::uint64_t token) {
  if (!open_ || draining_) return;
  if (head.size() != wire::data_header_bytes || bytes > limits::chunk_bytes_max)
    return fail(ErrorCode::internal,
                "a payload of " + std::to_string(bytes) + " bytes is too large to be sent");
  outbox_.push_payload(kind, head, payload, bytes, token);
}

void Connection::detach(std::uint64_t token) { outbox_.detach(token); }

bool Connection::discard_incoming() { return inbox_.stop_landing(); }

bool Connection::want_write() const {
  if (send_error_ != 0) return false;
  return !handshake_.output().empty() || stream_.unsent() || (may_send_frames() && !outbox_.empty());
}

bool Connection::on_io(bool readable, bool writable, std::size_t budget) {
  if (busy_ || finished_) return false;
  busy_ = true;
  bool more = false;
  if (writable) blocked_ = false;
  if (readable && open_) more = read_some(budget);
  if (open_) more = write_some(budget) || more;
  busy_ = false;
  if (open_) return more;
  finish();
  return false;
}

void Connection::flush(std::size_t budget) {
  if (busy_ || finished_) return;
  busy_ = true;
  if (open_) write_some(budget);
  busy_ = false;
  if (!open_) finish();
}

void Connection::close(Error why) {
  if (finished_) return;
  if (open_) why_ = std::move(why);
  open_ = false;
  outbox_.clear();
  inbox_.stop_landing();
  if (!busy_) finish();
}

void Connection::close_when_sent(Error why) {
  if (!open_ || draining_) return;
  draining_ = true;
  why_ = std::move(why);
  inbox_.stop_landing();
}

// Ends it; on_closed() follows when no callback is running any more.
void Connection::fail(ErrorCode code, const std::string& text) {
  if (!open_) return;
  if (!draining_) why_ = {code, remote_.empty() ? text : remote_ + ": " + text};
  open_ = false;
  outbox_.clear();
  inbox_.stop_landing();
}

void Connection::finish() {
  if (finished_) return;
  finished_ = true;
  // Forked children may hold the descriptor as well: closing ours alone would not tell the other side.
  ::shutdown(fd_, SHUT_RDWR);
  const Socket closes_last = std::move(socket_);
  const Error why = std::move(why_);
  handler_.on_closed(*this, why);  // may have destroyed *this
}

// ---- reading ----

bool Connection::read_some(std::size_t budget) {
  if (paused_ && !draining_) {
    notice_hang_up();
    return false;
  }
  handle_staged();
  for (std::size_t used = 0; open_ && want_read();) {
    if (used >= budget) return true;
    std::array<iovec, 2> parts;
    const int count = inbox_.prepare(parts.data());
    std::size_t asked = 0;
    for (int i = 0; i < count; ++i) asked += parts[static_cast<std::size_t>(i)].iov_len;
    const auto got = stream_.receive(parts.data(), count);
    const int code = errno;
    if (!ready_ && !draining_ && stream_.established()) become_ready();
    if (got < 0 && code == EINTR) continue;
    if (!open_ || !on_read_result(got, code)) return false;
    used += static_cast<std::size_t>(got);
    inbox_.received(static_cast<std::size_t>(got));
    handle_staged();
    if (stream_.drained(got, asked)) return false;
  }
  return false;
}

// False: nothing was read, for now or for ever.
bool Connection::on_read_result(ssize_t got, int code) {
  if (got > 0) return true;
  if (got < 0 && (code == EAGAIN || code == EWOULDBLOCK)) {
    if (send_error_ == 0) return false;
    code = send_error_;
  }
  if (got < 0 && stream_.error()) {
    write_some(budget_default);  // the other side may learn from it why it is turned away
    fail(stream_.error().code, stream_.error().text);
    return false;
  }
  if (got < 0 || send_error_ != 0) system_error_ = send_error_ != 0 ? send_error_ : code;
  if (!ready_ && stream_.secured()) {
    fail(ErrorCode::peer_lost, "the other side hung up while the secret was being checked" +
                                   (system_error_ != 0 ? ": " + errno_text(system_error_) : ""));
  } else if (!ready_) {
    const auto error = handshake_.on_end();
    const bool by_system = system_error_ != 0 && error.code == ErrorCode::connect;
    fail(error.code, by_system ? errno_text(system_error_) : error.text);
  } else if (system_error_ != 0) {
    fail(ErrorCode::peer_lost, errno_text(system_error_));
  } else {
    fail(ErrorCode::peer_lost, inbox_.inside_frame() ? "the other side hung up in the middle of a frame"
                                                     : "the other side hung up");
  }
  return false;
}

// Nothing is read while paused, but a stream that broke must not wait for resume() (nor keep the poller
// awake).
void Connection::notice_hang_up() {
  pollfd state{fd_, 0, 0};
  if (::poll(&state, 1, 0) <= 0 || (state.revents & (POLLERR | POLLHUP)) == 0) return;
  const int code = send_error_ != 0 ? send_error_ : connect_result(socket_);
  on_read_result(code == 0 ? 0 : -1, code);
}

void Connection::handle_staged() {
  if (!ready_ && !stream_.secured() && open_ && !draining_) greet();
  while (open_ && ready_ && !paused_ && !draining_) {
    const auto item = inbox_.next();
    if (item.what == Inbox::What::nothing) return;
    handle(item);
  }
  if (draining_) inbox_.consume(inbox_.staged().size());
}

void Connection::greet() {
  const auto used = handshake_.on_bytes(inbox_.staged());
  if (!used) {
    write_some(budget_default);  // the other side may learn from it why it is turned away
    return fail(used.error().code, used.error().text);
  }
  inbox_.consume(used.value());
  if (!handshake_.done()) return;
  if (handshake_.encrypts()) return secure();
  become_ready();
}

void Connection::secure() {
  auto tls = Tls::create(handshake_.side(), handshake_.key());
  if (!tls) return fail(tls.error().code, tls.error().text);
  const auto unsent = handshake_.output();
  stream_.secure(std::move(*tls), unsent, inbox_.staged());
  handshake_.sent(unsent.size());
  inbox_.consume(inbox_.staged().size());
}

void Connection::become_ready() {
  ready_ = true;
  handler_.on_ready(*this);
}

void Connection::handle(const Inbox::Item& item) {
  bool fine = true;
  switch (item.what) {
    case Inbox::What::message:
      fine = handler_.on_message(*this, item.body);
      break;
    case Inbox::What::payload:
      fine = offer(item);
      break;
    case Inbox::What::payload_end:
      handler_.on_payload_end(*this);
      break;
    case Inbox::What::error:
      return fail(ErrorCode::protocol, inbox_.error().text);
    case Inbox::What::nothing:
      break;
  }
  if (!fine) fail(ErrorCode::protocol, "the other side broke the protocol");
}

bool Connection::offer(const Inbox::Item& item) {
  const auto landing = handler_.on_payload(*this, item.kind, item.body, item.bytes);
  if (!open_ || draining_) return true;
  if (landing.pause) {
    paused_ = true;
  } else if (landing.to != nullptr && !landing.close) {
    inbox_.land(landing.to);
  } else {
    inbox_.discard();
  }
  return !landing.close;
}

// ---- writing ----

bool Connection::write_some(std::size_t budget) {
  std::array<iovec, write_parts_max> parts;
  for (std::size_t used = 0; open_ && !blocked_ && want_write();) {
    if (used >= budget) return true;
    int count = 0;
    std::size_t asked = 0;
    if (const auto greeting = handshake_.output(); !greeting.empty())
      parts[static_cast<std::size_t>(count++)] = {const_cast<std::uint8_t*>(greeting.data()),
                                                  greeting.size()};
    if (may_send_frames())
      count += outbox_.gather(parts.data() + count, write_parts_max - count,
                              std::min(budget - used, write_bytes_max));
    for (int i = 0; i < count; ++i) asked += parts[static_cast<std::size_t>(i)].iov_len;
    const auto sent = stream_.send(parts.data(), count);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && stream_.error()) return fail(stream_.error().code, stream_.error().text), false;
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
      send_error_ = errno;  // the poller reports it too, and reading then closes
      return false;
    }
    blocked_ = sent < 0 || stream_.unsent() || (!stream_.secured() && static_cast<std::size_t>(sent) < asked);
    if (sent > 0) note_sent(static_cast<std::size_t>(sent));
    used += sent > 0 ? static_cast<std::size_t>(sent) : 0;
  }
  if (open_ && draining_ && !shut_ && !want_write() && send_error_ == 0) {
    shut_ = true;
    ::shutdown(fd_, SHUT_WR);
  }
  return false;
}

void Connection::note_sent(std::size_t bytes) {
  const auto of_greeting = std::min(bytes, handshake_.output().size());
  handshake_.sent(of_greeting);
  outbox_.advance(bytes - of_greeting);
  while (open_) {
    const auto gone = outbox_.pop_sent();
    if (!gone) return;
    if (gone->payload) ++payloads_out_;
    if (gone->borrowed) handler_.on_sent(*this, gone->token);
  }
}

}  // namespace pccl::net
