// A peer that anybody may say anything to: a session and its exchange, with everything that they ask for done
// at once or not at all.
#pragma once
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "hostile.hpp"
#include "runtime/exchange.hpp"

namespace pccl::hostile {

class Household {
 public:
  explicit Household(std::uint64_t seed = 1, Join join = join_of("me"));

  // What the master says.
  void hear(const ToPeer& message);
  // It becomes peer 2 of the peers from 1 to `peers`, with a link to 1 and to 3.
  void enter(std::uint32_t peers);
  // The next view is this one, but for what `change` does to it.
  template <class F> void change_view(F change) {
    auto view = session.view();
    ++view.id.number;
    change(view);
    hear(ViewMessage{view, ""});
  }
  std::optional<OpKey> post(Descriptor descriptor, std::uint32_t name = 0, bool in_place = false);
  // Data from a peer, begun; its bytes come later or never.
  void frame(PeerId from, const wire::DataHeader& header);
  void finish_one();
  // Every dial fails or succeeds in the end.
  void answer_dials();
  void drain();

  Rng rng;
  Instant now = 1000;
  Session session;
  Exchange exchange;
  std::set<OpKey> open;
  std::map<ParkedId, std::pair<PeerId, wire::DataHeader>> parked;
  struct Arriving {
    wire::DataHeader header;
    SlotId slot;
  };
  std::vector<Arriving> arriving;
  std::vector<PeerId> dialled;
  std::size_t delivered = 0;
  bool gone = false;

 private:
  void forget_arriving(const OpKey& key);
  void complete(const OpKey& key);
  void apply(effect::SendMaster& e) { check_encodes<ToMaster>(e.message); }
  void apply(effect::ReconnectMaster&) {}
  void apply(effect::Dial& e) { dialled.push_back(e.peer); }
  void apply(effect::HangUp&) {}
  void apply(effect::DropAttempt& e);
  void apply(effect::StartAttempt& e);
  void apply(effect::FailedEarly& e) { exchange.failed_early(e.key); }
  void apply(effect::ViewChanged&) { exchange.view_changed(); }
  void apply(effect::Deliver& e);
  void apply(effect::Elected& e);
  void apply(effect::Admitted&) {}
  void apply(effect::BoundaryPassed&) {}
  void apply(effect::BoundaryFailed& e) { CHECK(e.why.code != ErrorCode::none); }
  void apply(effect::Gone& e);
  void apply(effect::Probe& e) { session.probed(e.round, {e.peer, 1, 1, Evidence::probe}); }
  void apply(effect::Notice&) {}
  void apply(exchange_effect::SendReady& e) { check_encodes<BetweenPeers>(e.ready); }
  void apply(exchange_effect::Do& e) { CHECK(e.key.tag.count != UINT32_MAX); }
  void apply(exchange_effect::Wake&) {}
  void apply(exchange_effect::Complete& e) { complete(e.key); }
  void apply(exchange_effect::More& e) { exchange.go_on(e.key, e.attempt); }
  void apply(exchange_effect::Mismatch& e) { session.abandon(e.key, ErrorCode::mismatch, e.text, now); }
  void apply(exchange_effect::Replay& e);
  void apply(exchange_effect::Discard& e) { CHECK_EQ(parked.erase(e.parked), 1); }

  std::set<OpKey> in_place_, states_, held_;
  SlotId last_slot_ = 0;
};

// An all-reduce of one tensor.
Descriptor reduce(std::uint64_t count, DType dtype = DType::float32);

}  // namespace pccl::hostile
