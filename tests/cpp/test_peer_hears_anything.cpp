// A peer that hears valid messages and data frames at random while it works: every call of its own comes back
// once, and with success only if it holds the result.
#include "household.hpp"

namespace pccl::hostile {
namespace {

Descriptor random_operation(Rng& rng) {
  Descriptor d = reduce(rng.below(20'000), static_cast<DType>(1 + rng.below(4)));
  d.call = static_cast<Call>(1 + rng.below(4));
  d.weighted = d.call == Call::all_reduce && rng.chance(0.3);
  d.on_loss = static_cast<OnLoss>(1 + rng.below(2));
  d.root = 1 + rng.below(3);
  if (d.call == Call::barrier || d.call == Call::sync_state) d.tensors.clear();
  return d;
}

wire::DataHeader random_frame(Household& home, Generate& generate) {
  auto& rng = home.rng;
  wire::DataHeader header;
  generate(header.view);
  generate(header.key);
  const auto* attempt = home.exchange.find(header.key);
  header.fingerprint =
      attempt != nullptr && rng.chance(0.95) ? attempt->fingerprint : std::uint32_t(rng.next());
  header.step = std::uint16_t(rng.below(6));
  header.bytes = std::uint32_t(rng.below(limits::chunk_bytes_max + 1));
  if (attempt == nullptr || attempt->executor == nullptr) return header;
  const auto& layout = attempt->executor->layout();
  header.chunk = std::uint32_t(rng.below(layout.chunks() + 2));
  const auto& steps = attempt->executor->plan().steps;
  if (header.step < steps.size() && header.chunk < layout.chunks() && rng.chance(0.95))
    header.bytes = attempt->executor->chunk_bytes(header.chunk, steps[header.step].in);
  return header;
}

void hostile_link(Household& home, Generate& generate) {
  auto& rng = home.rng;
  const PeerId from = rng.chance(0.9) ? 1 + 2 * rng.below(2) : rng.below(6);
  switch (rng.below(5)) {
    case 0: {
      auto ready = generate.value<Ready>();
      const auto* attempt = home.exchange.find(ready.key);
      if (attempt != nullptr && rng.chance(0.8)) ready.descriptor = attempt->descriptor;
      CHECK(home.exchange.on_ready(from, ready));
      break;
    }
    case 1:
      home.finish_one();
      break;
    case 2:
      if (const auto outgoing = home.exchange.next(from)) {
        CHECK(outgoing->header.bytes <= limits::chunk_bytes_max);
        home.exchange.sent(*outgoing);
      }
      break;
    default:
      home.frame(from, random_frame(home, generate));
  }
  home.drain();
}

void local_event(Household& home) {
  auto& rng = home.rng;
  const PeerId peer = rng.below(5);
  switch (rng.below(10)) {
    case 0:
      home.session.on_link_up(peer, home.now);
      home.exchange.on_link_up(peer);
      break;
    case 1:
      home.session.on_link_down(peer, rng.chance(0.3), "cut", home.now);
      break;
    case 2:
      home.session.on_dial_failed(peer, rng.chance(0.3), "no", home.now);
      break;
    case 3:
      (void)home.session.enter_boundary(std::uint32_t(rng.below(3)), rng.chance(0.5) ? never : second,
                                        home.now);
      break;
    case 4:
      home.session.leave_boundary(home.now);
      break;
    case 5:
      if (!home.open.empty()) home.session.abandon(*home.open.begin(), ErrorCode::cancelled, "", home.now);
      break;
    case 6:
      if (rng.chance(0.1)) home.session.on_master_down(home.now, ""), home.session.on_master_up(home.now);
      break;
    case 7:
      if (!home.open.empty()) home.session.attempt_broken(*home.open.begin(), peer, "broken", home.now);
      break;
    case 8:
      home.answer_dials();
      break;
    default:
      home.now += Duration(rng.below(30 * millisecond));
      home.session.tick(home.now);
  }
  home.drain();
}

void know_home(Generate& generate, Household& home) {
  know(generate, home.rng, home.session.view());
  generate.numbers.push_back(2);  // itself
  for (const auto& key : home.open) generate.keys.push_back(key), generate.keys.push_back(key);
}

ToPeer message_for(Household& home, Generate& generate) {
  auto& rng = home.rng;
  auto message = generate.message<ToPeer>();
  const bool ends = std::holds_alternative<Refused>(message) || std::holds_alternative<Evicted>(message) ||
                    std::holds_alternative<Suspended>(message);
  if (ends && rng.chance(0.98)) return Pulse{std::uint32_t(rng.below(3)), rng.chance(0.5) ? "" : "who knows"};
  if (auto* view = std::get_if<ViewMessage>(&message); view != nullptr && rng.chance(0.95)) {
    view->view.members = home.session.view().members;  // else it is over at once
    view->view.id = {home.session.view().id.incarnation,
                     home.session.view().id.number + std::uint32_t(rng.below(3))};
    if (rng.chance(0.2)) view->view.members.push_back(generate.value<Member>());
  }
  return message;
}

TEST(peers_hear_anything) {
  std::size_t delivered = 0, long_lives = 0;
  for (std::uint64_t seed = 1; seed <= 250; ++seed) {
    Join join = join_of("me");
    join.role = seed % 20 == 0 ? Role::keeper : Role::trainer;
    Household home(seed, join);
    if (seed % 10 != 0) home.enter(3);
    int i = 0;
    for (; i < 500 && !home.gone; ++i) {
      Generate generate(home.rng);
      know_home(generate, home);
      if (home.rng.chance(0.15))
        home.post(random_operation(home.rng), std::uint32_t(home.rng.below(3)), home.rng.chance(0.5));
      else if (home.rng.chance(0.5))
        hostile_link(home, generate);
      else if (home.rng.chance(0.5))
        local_event(home);
      else
        home.hear(message_for(home, generate));
    }
    long_lives += i > 100;
    home.session.leave(home.now);
    home.drain();
    CHECK(home.gone);
    CHECK(home.open.empty());  // every call came back, once
    CHECK(home.arriving.empty());
    delivered += home.delivered;
  }
  CHECK(delivered > 1000);
  CHECK(long_lives > 20);
}

}  // namespace
}  // namespace pccl::hostile
