// Data links to other peers: dialling, accepting, the hello of each stripe, and which stripe a frame takes.
// A link is up when all its stripes are; it is lost with the first stripe that breaks. Owned by the I/O
// thread.
#pragma once
#include <deque>
#include <map>
#include <set>

#include "runtime/resolver.hpp"
#include "wire/codec.hpp"

namespace pccl {

struct LinkInfo {
  std::uint32_t stripes = 0;
  std::string congestion;
  std::string remote;
  std::string transport = "tcp";  // how chunks leave: as bytes, or by their place
  std::uint64_t bytes_in = 0, bytes_out = 0;
};

class Links : public net::Connection::Handler {
 public:
  class Owner {
   public:
    virtual void link_up(PeerId peer) = 0;
    virtual void link_down(PeerId peer, const std::string& why) = 0;
    virtual void dial_failed(PeerId peer, bool refused, const std::string& why) = 0;
    virtual bool link_message(PeerId peer, const BetweenPeers& message) = 0;
    virtual net::Landing link_payload(PeerId peer, net::Connection& stripe, wire::FrameKind kind,
                                      ByteView head, std::size_t bytes) = 0;
    virtual void link_payload_end(PeerId peer, net::Connection& stripe) = 0;
    virtual void link_sent(PeerId peer, std::uint64_t token) = 0;
    virtual void stripe_closed(net::Connection& stripe) = 0;  // what it was receiving is void
   protected:
    ~Owner() = default;
  };

  Links(Hub& hub, Owner& owner, Bytes secret, std::string congestion, Duration unacked_max,
        Resolver::LookUp look_up)
      : hub_(hub),
        owner_(owner),
        secret_(std::move(secret)),
        congestion_(std::move(congestion)),
        unacked_max_(unacked_max),
        resolver_(hub, std::move(look_up)) {}

  void identify(std::uint64_t run, PeerId me) { run_ = run, me_ = me; }
  void dial(PeerId peer, std::vector<Address> addresses);
  void hang_up(PeerId peer);
  void accept(net::Accepted accepted);
  bool up(PeerId peer) const { return up_.contains(peer); }
  void send(PeerId peer, const BetweenPeers& message);
  // The stripe that the next chunk takes: the one with the least queued; null: all have enough to do.
  net::Connection* stripe_for_chunk(PeerId peer);
  net::Connection* stripe_for_block(PeerId peer);  // blocks are asked for a few at a time: never refused
  void touch(net::Connection& stripe) { hub_.touch(stripe); }
  void detach(PeerId peer, std::uint64_t token);
  template <class F> void each_stripe(F f) {
    for (auto& [peer, link] : up_)
      for (auto* stripe : link.stripes) f(peer, *stripe);
  }
  std::map<PeerId, LinkInfo> info() const;
  void tick(Instant now);  // strangers and dials that take too long
  void close_all();

  // net::Connection::Handler
  void on_ready(net::Connection& c) override;
  bool on_message(net::Connection& c, ByteView body) override;
  net::Landing on_payload(net::Connection& c, wire::FrameKind kind, ByteView head,
                          std::size_t bytes) override;
  void on_payload_end(net::Connection& c) override;
  void on_sent(net::Connection& c, std::uint64_t token) override;
  void on_closed(net::Connection& c, const Error& why) override;

 private:
  static constexpr std::uint8_t stripes_default = 2;
  static constexpr std::size_t frames_in_flight_max =
      4;  // per stripe: a slow peer must slow its sender, not eat its memory
  static constexpr std::uint64_t bytes_in_flight_max = 1u << 20;
  static constexpr Duration hello_timeout = 5 * second;
  static constexpr Duration own_dial_wins = 500 * millisecond;

  struct Link {
    std::uint64_t number = 0;
    std::vector<net::Connection*> stripes;  // by stripe index; null: not there yet
    bool dialled = false;                   // by this end
    Instant since = 0;
    bool complete() const;
  };
  struct Dialling {
    Link link;
    std::vector<Address> addresses;
    std::size_t next_address = 0;
    std::deque<net::SocketAddress> found;  // what the last of them stands for, less those tried
    std::uint64_t look_up = 0;             // its number
    Instant since = 0;
    bool refused = true;  // every address so far refused
    std::string why;
  };
  struct Role {             // what a connection is to us
    PeerId peer = no_peer;  // no_peer: a stranger that has not said hello
    std::uint64_t number = 0;
    bool dialled = false;
    std::uint8_t stripe = 0;
    Instant since = 0;
  };
  void dial_next(PeerId peer, Dialling& dialling);
  void looked_up(PeerId peer, std::uint64_t look_up, Resolver::Found found);
  void start_stripes(PeerId peer, Dialling& dialling, const net::SocketAddress& address);
  void dial_over(PeerId peer, bool refused, std::string why);
  bool on_hello(net::Connection& c, Role& role, const LinkHello& hello);
  bool on_hello_answer(net::Connection& c, const Role& role, const LinkHello& hello);
  void establish(PeerId peer, Link link);
  void drop(Link& link, const Error& why);
  Link* link_of(const Role& role, bool* is_up);

  Hub& hub_;
  Owner& owner_;
  Bytes secret_;
  std::string congestion_;
  Duration unacked_max_;
  std::uint64_t run_ = 0;
  PeerId me_ = no_peer;
  std::map<PeerId, Link> up_;
  std::map<PeerId, Dialling> dialling_;
  std::map<PeerId, Link> arriving_;
  std::map<net::Connection*, Role> roles_;
  std::uint64_t next_number_ = 1, look_ups_ = 0;
  Resolver resolver_;
};

}  // namespace pccl
