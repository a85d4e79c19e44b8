// The data half of a peer, purely: attempts, READY, parked frames, and which chunk leaves next on which link.
// Composes the session (when an attempt may run) with executors (what it does). Owned by the session's
// thread.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <tuple>

#include "protocol/session.hpp"
#include "runtime/make_executor.hpp"
#include "wire/frame.hpp"

namespace pccl {

using ParkedId = std::uint64_t;
using AttemptId = std::uint64_t;

namespace exchange_effect {
struct SendReady {
  PeerId to;
  Ready ready;
};
struct Do {
  AttemptId attempt;
  OpKey key;
  Work work;
};
struct Wake {
  PeerId peer;
};  // there is something to send to it
struct Complete {
  AttemptId attempt;
  OpKey key;
};
struct More {  // call go_on() when others have had their turn
  AttemptId attempt;
  OpKey key;
};
struct Mismatch {
  AttemptId attempt;
  OpKey key;
  std::string text;
};
struct Replay {
  ParkedId parked;
};  // offer the parked frame again, then forget its bytes
struct Discard {
  ParkedId parked;
};
}  // namespace exchange_effect
using ExchangeEffect =
    std::variant<exchange_effect::SendReady, exchange_effect::Do, exchange_effect::Wake,
                 exchange_effect::Complete, exchange_effect::More, exchange_effect::Mismatch,
                 exchange_effect::Replay, exchange_effect::Discard>;

// How much is sent before it is asked for, and kept while it waits to be sent. Smaller in the simulator.
struct ExchangeLimits {
  std::size_t eager_bytes = limits::eager_bytes;
  std::size_t eager_operations = limits::eager_operations_max;
  std::size_t head_start_bytes = limits::head_start_bytes;
  std::uint32_t slots = 64;  // of one attempt
  std::uint32_t slots_of_readers = 0;
  std::uint64_t own_bytes = 4u << 20;  // copied in one turn
};

struct Outgoing {
  AttemptId attempt = 0;
  OpKey key;
  wire::DataHeader header;
  ChunkSend send;
};

class Exchange {
 public:
  struct Attempt {
    AttemptId id = 0;
    OpKey key;
    ViewId view;
    Descriptor descriptor;
    std::uint32_t fingerprint = 0;
    std::vector<PeerId> ring;  // peers by position
    std::uint32_t position = 0;
    std::uint64_t order = 0;
    bool complete_said = false;
    bool head_start = false;
    bool bulk = false;
    std::optional<std::int64_t> allowance;  // bytes that it may send; none: as many as it likes
    std::set<std::uint32_t> heard;          // positions whose READY says that they do the same as this peer
    std::unique_ptr<Executor> executor;
    std::uint32_t position_of(PeerId peer) const;
  };

  Exchange(const Session& session, Rules rules = {}, ExchangeLimits limits = {})
      : session_(session), rules_(rules), limits_(limits) {}

  // effect::StartAttempt. `limited`: it sends what allow() lets it. `sums`: of a coded reduce.
  void begin(const OpKey& key, bool in_place, const CodedSums* sums = nullptr, bool limited = false);
  void allow(const OpKey& key, std::int64_t bytes, std::int64_t most);  // so much more, kept up to `most`
  void go_on(const OpKey& key, AttemptId attempt);                      // exchange_effect::More
  void drop(const OpKey& key);          // effect::DropAttempt and after effect::Deliver
  void failed_early(const OpKey& key);  // effect::FailedEarly
  void view_changed();                  // after the attempts of the new view have begun
  void on_link_up(PeerId peer);
  void set_reader(PeerId peer, bool reads);        // it takes chunks from where they lie
  bool on_ready(PeerId from, const Ready& ready);  // false: no honest peer announces so much
  // Who was the first to say that it sends to this peer with that name, which this one has not posted yet.
  // `only`: nobody else counts.
  std::optional<PeerId> announced(std::uint32_t name, PeerId only = no_peer) const;

  // Whether to wait for its READY takes long. Asked at the beginning of each attempt: paths change.
  using Distant = std::function<bool(PeerId)>;
  void ask_distance(Distant distant) { distant_ = std::move(distant); }

  // A data frame's header arrived. park: keep the payload and call park(); it comes back by Replay or
  // Discard.
  Landing land(PeerId from, const wire::DataHeader& header);
  ParkedId park(PeerId from, const wire::DataHeader& header);
  bool may_park(PeerId from, std::size_t bytes) const;
  void arrived(const wire::DataHeader& header, SlotId slot);
  void unland(const wire::DataHeader& header, AttemptId attempt);  // half of it came

  bool sendable(PeerId peer) const;
  bool bulk(PeerId peer) const;  // what is sent to it now is part of something large
  std::optional<Outgoing> next(PeerId peer);
  bool sent(const Outgoing& outgoing);  // true: its slot is free

  const Attempt* find(const OpKey& key) const;
  // An effect may be looked at when its attempt is over already: it says nothing about the next one.
  bool current(const OpKey& key, AttemptId attempt) const {
    const auto* found = find(key);
    return found != nullptr && found->id == attempt;
  }
  bool take_effects(std::vector<ExchangeEffect>& into);

 private:
  struct Parked {
    PeerId from;
    wire::DataHeader header;
  };
  struct ParkedReady {
    Ready ready;
    std::uint64_t order = 0;  // in which they came
  };
  using FrameId = std::tuple<PeerId, ViewId, OpKey, std::uint16_t, std::uint32_t>;
  bool overtaken(PeerId from, ViewId view) const;
  void discard(ParkedId id);
  static FrameId identity_of(PeerId from, const wire::DataHeader& header);
  bool may_be_eager(const Descriptor& descriptor) const;
  void give_head_starts(Attempt& attempt) const;
  std::vector<PeerId> peers_of(const Operation& operation) const;
  Standing standing_of(const Attempt& attempt, bool in_place, const CodedSums* sums) const;
  static bool may_send(const Attempt& attempt, std::uint32_t position);
  std::vector<PeerId> sources_of(const Attempt& attempt) const;
  void send_ready(const Attempt& attempt, PeerId to);
  bool may_park_ready(PeerId from, const Ready& ready) const;
  bool departed(PeerId peer) const;
  void use_ready(Attempt& attempt, PeerId from, const Descriptor& theirs);
  void settle(Attempt& attempt);
  void do_all(const Attempt& attempt, std::vector<Work>& work);
  void replay_parked();
  template <class E> void emit(E effect) { effects_.emplace_back(std::move(effect)); }

  const Session& session_;
  Rules rules_;
  ExchangeLimits limits_;
  std::map<OpKey, Attempt> attempts_;
  std::map<std::uint64_t, OpKey> by_order_;
  std::map<std::pair<PeerId, OpKey>, ParkedReady> ready_parked_;
  std::uint64_t readies_parked_ = 0;
  std::set<PeerId> readers_;
  Distant distant_;
  std::map<ParkedId, Parked> parked_;
  std::map<FrameId, ParkedId> parked_as_;
  std::map<PeerId, std::size_t> parked_bytes_;
  std::vector<Work> work_;
  AttemptId next_attempt_ = 1;
  ParkedId next_parked_ = 1;
  std::vector<ExchangeEffect> effects_;
};

}  // namespace pccl
