// Two connections over a socket pair, or one with the test itself at the other end, and a handler that writes
// down what it was told.
#pragma once
#include <sys/socket.h>

#include <algorithm>
#include <functional>
#include <memory>

#include "base/rng.hpp"
#include "check.hpp"
#include "net/connection.hpp"

namespace pccl::net {

using wire::data_header_bytes;
using wire::FrameKind;

inline Bytes random_bytes(Rng& rng, std::size_t size) {
  Bytes data(size);
  for (auto& byte : data) byte = static_cast<std::uint8_t>(rng.next());
  return data;
}

inline Bytes bytes(std::string_view text) { return {text.begin(), text.end()}; }

// Frames as they came, in order: kind, data header, content.
struct Received {
  FrameKind kind = FrameKind::message;
  Bytes head, content;
  bool operator==(const Received&) const = default;
};

struct Recorder : Connection::Handler {
  std::vector<Received> frames;
  std::vector<std::uint64_t> sent;
  std::vector<Error> closed;
  int ready = 0;
  Received landing;
  // What a test wants to do in the middle of a callback.
  std::function<void(Connection&)> at_ready, at_message, at_payload_end, at_sent;
  std::function<Landing(Connection&)> at_payload;

  void on_ready(Connection& connection) override {
    ++ready;
    if (at_ready) at_ready(connection);
  }
  bool on_message(Connection& connection, ByteView body) override {
    frames.push_back({FrameKind::message, {}, {body.begin(), body.end()}});
    if (at_message) at_message(connection);
    return true;
  }
  Landing on_payload(Connection& connection, FrameKind kind, ByteView head, std::size_t size) override {
    landing = {
        kind, {head.begin(), head.end()}, Bytes(size + 1)};  // one more: empty payloads have memory as well
    landing.content.resize(size);
    return at_payload ? at_payload(connection) : Landing{landing.content.data()};
  }
  void on_payload_end(Connection& connection) override {
    frames.push_back(landing);
    if (at_payload_end) at_payload_end(connection);
  }
  void on_sent(Connection& connection, std::uint64_t token) override {
    sent.push_back(token);
    if (at_sent) at_sent(connection);
  }
  void on_closed(Connection&, const Error& why) override { closed.push_back(why); }
};

inline std::pair<Socket, Socket> socket_pair() {
  int fds[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
  return {Socket(fds[0]), Socket(fds[1])};
}

inline Handshake handshake(Side side, std::string_view secret = {}, bool encrypt = true) {
  auto nonce = random_nonce();
  REQUIRE(nonce);
  return Handshake(side, 1, {bytes(secret), encrypt}, nonce.value());
}

struct Pair {
  Recorder a_log, b_log;
  std::unique_ptr<Connection> a, b;

  explicit Pair(std::string_view a_secret = {}, std::string_view b_secret = {}, bool trusted = true,
                bool a_encrypts = true, bool b_encrypts = true) {
    auto [left, right] = socket_pair();
    a = std::make_unique<Connection>(std::move(left), handshake(Side::dialler, a_secret, a_encrypts), "b",
                                     a_log);
    b = std::make_unique<Connection>(std::move(right), handshake(Side::acceptor, b_secret, b_encrypts), "a",
                                     b_log);
    if (!trusted) return;
    a->trust();
    b->trust();
  }
  void run(std::size_t budget = Connection::budget_default) {
    for (std::uint64_t before = 1, now = 0; before != now;) {
      before = total();
      a->on_io(true, true, budget);
      b->on_io(true, true, budget);
      now = total();
    }
  }
  std::uint64_t total() const { return a->bytes_in() + a->bytes_out() + b->bytes_in() + b->bytes_out(); }
};

// One Connection, and at the other end the test itself with a bare descriptor.
struct Bare {
  Recorder log;
  Socket wire;
  std::unique_ptr<Connection> connection;

  explicit Bare(bool trusted = true, std::string_view secret = {}, bool encrypt = true) {
    auto [left, right] = socket_pair();
    wire = std::move(left);
    connection = std::make_unique<Connection>(std::move(right), handshake(Side::acceptor, secret, encrypt),
                                              "stranger", log);
    if (trusted) connection->trust();
  }
  void say(ByteView what) {
    for (std::size_t at = 0; at < what.size() && connection->open();) {
      const auto gone = ::send(wire.fd(), what.data() + at, what.size() - at, MSG_NOSIGNAL);
      if (gone > 0) at += static_cast<std::size_t>(gone);
      connection->on_io(true, true);
    }
  }
  void greet(std::string_view secret = {}) {
    auto hello = handshake(Side::dialler, secret);
    say(hello.output());
  }
  Bytes hear() {
    Bytes all(1 << 20);
    const auto got = ::recv(wire.fd(), all.data(), all.size(), 0);
    all.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return all;
  }
};

inline Bytes frame(FrameKind kind, ByteView body) {
  Bytes whole(wire::frame_header_bytes);
  const auto checked =
      kind == FrameKind::message ? body : body.first(std::min(body.size(), data_header_bytes));
  wire::store({static_cast<std::uint32_t>(body.size()), kind}, checked, whole.data());
  whole.insert(whole.end(), body.begin(), body.end());
  return whole;
}

// Of every size that is special somewhere, and random ones.
inline std::size_t some_size(Rng& rng, std::size_t size_max) {
  constexpr std::size_t special[] = {0,     1,     47,        48,    49,         55,
                                     56,    57,    512,       16383, 16384,      65527,
                                     65528, 65529, 64u << 10, 65537, 256u << 10, 1u << 20};
  const auto pick = rng.below(3);
  const auto size = pick == 0 ? special[rng.below(std::size(special))] : rng.below(pick == 1 ? 200 : 300'000);
  return std::min<std::size_t>(size, size_max);
}

// Frames of an own stream of randomness; payload memory lives here until the end.
struct Traffic {
  std::vector<Received> frames;

  Traffic(std::uint64_t seed, int count) {
    Rng rng(seed);
    for (int i = 0; i < count; ++i) {
      const auto kind = static_cast<FrameKind>(1 + rng.below(3));
      const bool message = kind == FrameKind::message;
      frames.push_back({kind, message ? Bytes() : random_bytes(rng, data_header_bytes),
                        random_bytes(rng, some_size(rng, 1u << 20))});
    }
  }
  void send(Connection& connection, std::size_t index) const {
    const auto& [kind, head, content] = frames[index];
    if (kind == FrameKind::message) {
      connection.send_message(content);
    } else {
      connection.send_payload(kind, head, content.data(), content.size(), index);
    }
  }
  std::vector<std::uint64_t> tokens() const {
    std::vector<std::uint64_t> all;
    for (std::size_t i = 0; i < frames.size(); ++i)
      if (frames[i].kind != FrameKind::message) all.push_back(i);
    return all;
  }
};

}  // namespace pccl::net
