// Data links to other peers: dialling, accepting, the stripes of each, and which stripe a frame takes.
// A link is up from its first stripe on. The dialler opens more, by the path, and those that break anew; the
// link is lost with the last one. Owned by the I/O thread.
#pragma once
#include <deque>
#include <map>
#include <set>

#include "net/tcp_state.hpp"
#include "protocol/cost.hpp"
#include "runtime/pace.hpp"
#include "runtime/resolver.hpp"
#include "runtime/stranger_log.hpp"
#include "runtime/strangers.hpp"
#include "wire/codec.hpp"

namespace pccl {

struct LinkInfo {
  std::uint32_t stripes = 0, mended = 0;  // now; and those that broke while others lived
  std::string congestion;
  std::string remote;
  std::string transport = "tcp";  // how chunks leave: as bytes, or by their place
  Path path = Path::lan;
  Duration rtt = never;
  std::uint64_t bytes_in = 0, bytes_out = 0;
};

struct LinkOptions {
  std::string congestion = "auto";
  Duration unacked_max = 20 * second;
  std::uint8_t stripes = 0;  // 0: by path
  bool checksum = false;     // of every chunk; where one end of a link wants it, both do it
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
    // False: the bytes are not what was sent.
    virtual bool link_payload_end(PeerId peer, net::Connection& stripe) = 0;
    virtual void link_sent(PeerId peer, net::Connection& stripe, std::uint64_t token) = 0;
    // The other end has so many of the payloads that were sent on this stripe.
    virtual void link_received(PeerId peer, net::Connection& stripe, std::uint64_t payloads) = 0;
    virtual void stripe_closed(net::Connection& stripe) = 0;  // what it was receiving is void
    // After that, while other stripes live: what it carried and nobody is known to have goes over them.
    virtual void stripe_broke(PeerId peer, net::Connection& stripe) = 0;
    // To a link that is up. `mended`: a line for people, where it had broken.
    virtual void stripe_added(PeerId peer, const std::string& mended) = 0;
    virtual void link_news(const std::string& text) = 0;  // a line for people

   protected:
    ~Owner() = default;
  };

  Links(Hub& hub, Owner& owner, net::Secret secret, LinkOptions options, Resolver::LookUp look_up)
      : hub_(hub),
        owner_(owner),
        secret_(std::move(secret)),
        options_(std::move(options)),
        resolver_(hub, std::move(look_up)) {}

  void identify(std::uint64_t run, PeerId me) { run_ = run, me_ = me; }
  // What the view says: 0 where it says nothing.
  void advise(std::uint8_t stripes, std::uint64_t bandwidth, std::size_t peers);
  void dial(PeerId peer, std::vector<Address> addresses);
  void hang_up(PeerId peer);
  void accept(net::Accepted accepted);
  bool up(PeerId peer) const { return up_.contains(peer); }
  bool distant(PeerId peer) const;  // over a path on which round trips are long
  bool checksums(PeerId peer) const;
  void send(PeerId peer, const BetweenPeers& message);
  // The stripe that the next chunk takes: of those with room, the one with the least queued; null: all have
  // enough to do. `bulk`: it is one of many; few stripes then carry them over a long path.
  using MayTake = std::function<bool(const net::Connection&)>;
  net::Connection* stripe_for_chunk(PeerId peer, bool bulk, const MayTake& may_take);
  net::Connection* stripe_for_block(PeerId peer);  // blocks are asked for a few at a time: never refused
  void nothing_to_send(PeerId peer);
  void touch(net::Connection& stripe) { hub_.touch(stripe); }
  void detach(PeerId peer, std::uint64_t token);
  template <class F> void each_stripe(F f) {
    for (auto& [peer, link] : up_)
      for (auto& stripe : link.stripes)
        if (stripe.connection != nullptr) f(peer, *stripe.connection);
  }
  std::map<PeerId, LinkInfo> info() const;
  Instant next_deadline() const { return open_at_; }
  void open_due(Instant now);  // stripes that are to be opened
  void tick(Instant now);      // now and then: strangers and dials that take too long, links that want more
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
  // Per stripe: a slow peer must slow its sender, not eat its memory. Over long paths the kernel's queue
  // bridges the time until this thread comes back, and a chunk more must not be stuck to a slow stripe.
  static constexpr std::size_t frames_in_flight_max = 16, frames_in_flight_wan = 2;
  static constexpr std::uint64_t bytes_in_flight_max = 1u << 20;
  static constexpr std::uint64_t receipt_bytes = 512u << 10;  // received on a stripe until it is told
  static constexpr Duration hello_timeout = 5 * second;
  static constexpr Duration own_dial_wins = 500 * millisecond;
  static constexpr Duration reopen_next = 5 * millisecond;  // while others are being opened
  static constexpr Duration reopen_first = 50 * millisecond, reopen_last = 6 * second;  // doubled in between
  // While the bandwidth is not known. The only link of a peer has the access line for itself.
  static constexpr std::uint8_t wan_stripes = 8, wan_stripes_alone = limits::stripes_max;
  static constexpr Duration busy_lately = 500 * millisecond;

  struct Stripe {
    net::Connection* connection = nullptr;  // null: not there now
    net::Connection* opening = nullptr;     // at the dialler
    std::uint32_t serial = 0;
    std::uint32_t failures = 0;
    Instant open_at = never;
    std::string broke;  // why; until it is there again
  };
  struct Link {
    std::uint64_t number = 0;
    std::vector<Stripe> stripes;
    bool dialled = false;  // by this end
    bool checksum = false;
    Path path = Path::lan;
    std::uint8_t wanted = 1;
    std::uint32_t mended = 0;
    net::SocketAddress address;  // of the other end, at the dialler
    std::uint64_t acked = 0;     // when it was last looked at
    Pace pace;
    std::uint64_t bound = 0;                          // of all stripes, by their pace; 0: none
    std::size_t paced_for = 0;                        // stripes that share it
    Instant busy_at = 0;                              // when its pace was last looked at
    std::uint8_t bulk_stripes = limits::stripes_max;  // that share the chunks of a large operation
    Instant since = 0;
    std::size_t alive() const;
    std::size_t carriers() const { return std::min<std::size_t>(alive(), bulk_stripes); }
    std::size_t sockets() const;  // those that are being opened as well
    net::Connection* any() const;
  };
  struct Dialling {
    std::uint64_t number = 0;
    net::Connection* connection = nullptr;
    net::SocketAddress address;
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
    bool attached = false;  // a stripe of a link that is up
    std::uint8_t stripe = 0;
    std::uint32_t serial = 0;
    std::uint64_t untold = 0;  // bytes received since the other end was told
    Instant since = 0;
  };
  // links.cpp
  void dial_next(PeerId peer, Dialling& dialling);
  void looked_up(PeerId peer, std::uint64_t look_up, Resolver::Found found);
  void dial_address(PeerId peer, Dialling& dialling, const net::SocketAddress& address);
  void dial_over(PeerId peer, bool refused, std::string why);
  Result<net::Connection*> connect(const net::SocketAddress& address, Role role, std::uint8_t stripes);
  bool on_hello(net::Connection& c, Role& role, const LinkHello& hello);
  bool on_answer(net::Connection& c, Role& role, const LinkHello& hello);
  void answer(net::Connection& c, const LinkHello& hello, HelloKind kind, std::uint8_t stripes);
  bool own_dial_first(PeerId from) const;
  void establish(PeerId peer, Link link, net::Connection& c);
  void drop(Link& link, const Error& why);
  void forget_dialling(PeerId peer, const Error& why);
  void dial_closed(PeerId peer, net::Connection& c, const Error& why);
  // link_stripes.cpp
  Link* link_of(const Role& role);
  bool take_stripe(net::Connection& c, Role& role, const LinkHello& hello, Link& link);
  bool stripe_answered(net::Connection& c, Role& role, const LinkHello& hello);
  void attach(Link& link, net::Connection& c, Role& role);
  void on_stripe_lost(PeerId peer, const StripeLost& lost);
  void stripe_ended(const Role& role, net::Connection& c, const Error& why);
  void opening_ended(const Role& role, net::Connection& c, const Error& why);
  void lose(PeerId peer, const Error& why);
  void drain_and_close(net::Connection& c, const Error& why);
  void open_stripe(PeerId peer, Link& link, std::uint8_t index);
  void open_later(Stripe& stripe, Instant at);
  std::uint8_t wanted_by(const Link& link, std::uint64_t bandwidth, Duration rtt) const;
  void want(PeerId peer, Link& link, std::uint8_t stripes);
  std::size_t stripes_allowed() const;
  void look_at(PeerId peer, Link& link);
  void keep_pace(Link& link);
  static std::optional<Pace::Seen> seen_of(const Link& link);
  void share_stripes(Instant now, Duration rtt);
  void tell_received(net::Connection& c, Role& role);

  Hub& hub_;
  Owner& owner_;
  net::Secret secret_;
  LinkOptions options_;
  std::uint64_t run_ = 0;
  PeerId me_ = no_peer;
  std::uint8_t advised_stripes_ = 0;
  std::uint64_t advised_bandwidth_ = 0;
  bool alone_ = false;  // with one other peer
  std::map<PeerId, Link> up_;
  std::map<PeerId, Dialling> dialling_;
  std::map<net::Connection*, Role> roles_;
  Strangers strangers_;
  StrangerLog stranger_log_{[this](const std::string& line) { owner_.link_news(line); }};
  std::uint64_t next_number_ = 1, look_ups_ = 0;
  Instant open_at_ = never;  // no stripe is to be opened before
  Resolver resolver_;
};

}  // namespace pccl
