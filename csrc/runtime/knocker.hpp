// Asks whether anybody still listens where a peer did: a refusal from all its addresses witnesses its death.
// Owned by the master's I/O thread.
#pragma once
#include <functional>
#include <map>
#include <set>

#include "runtime/hub.hpp"

namespace pccl {

class Knocker final : net::Connection::Handler {
 public:
  using OnRefused = std::function<void(PeerId)>;
  Knocker(Hub& hub, net::Secret secret, OnRefused on_refused)
      : hub_(hub), secret_(std::move(secret)), on_refused_(std::move(on_refused)) {}

  // Numeric addresses only: a name would have to be looked up, on a thread that serves sockets.
  void knock(PeerId peer, std::vector<Address> addresses, Instant now);
  void tick(Instant now);
  Instant next_deadline() const;
  void close_all();

 private:
  // A dying process closes its descriptors one by one: the port may answer a little longer than its links.
  static constexpr Duration ask_every = 10 * millisecond;
  static constexpr Duration answer_timeout = 2 * second;  // no answer is no witness
  struct Question {
    std::vector<Address> addresses;
    Instant since = 0;
    Instant again_at = never;
    std::set<net::Connection*> asked;
    bool refused = true;  // so far
  };
  void ask(PeerId peer, Question& question);
  void forget(PeerId peer);
  PeerId asked_by(const net::Connection& c) const;

  void on_ready(net::Connection& c) override;
  bool on_message(net::Connection&, ByteView) override { return false; }
  net::Landing on_payload(net::Connection&, wire::FrameKind, ByteView, std::size_t) override {
    return {.close = true};
  }
  void on_payload_end(net::Connection&) override {}
  void on_sent(net::Connection&, std::uint64_t) override {}
  void on_closed(net::Connection& c, const Error& why) override;

  Hub& hub_;
  net::Secret secret_;
  OnRefused on_refused_;
  std::map<PeerId, Question> questions_;
};

}  // namespace pccl
