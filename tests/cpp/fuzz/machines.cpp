// Whole conversations: what a master or a peer makes of messages that were decoded from any bytes. A step is
// who (1), length (2), message.
#include "court.hpp"
#include "fuzz/target.hpp"
#include "household.hpp"

namespace pccl::fuzz {
namespace {

constexpr std::size_t steps_max = 200;
constexpr std::uint8_t hangs_up = 0x80, time_passes = 0x40;

template <class F> void each_step(ByteView bytes, F f) {
  for (std::size_t steps = 0; bytes.size() >= 3 && steps < steps_max; ++steps) {
    const auto size = std::min<std::size_t>(load_little<std::uint16_t>(&bytes[1]), bytes.size() - 3);
    f(bytes[0], bytes.subspan(3, size));
    bytes = bytes.subspan(3 + size);
  }
}

void step(Bytes& to, std::uint8_t who, ByteView message) {
  to.push_back(who);
  to.push_back(std::uint8_t(message.size()));
  to.push_back(std::uint8_t(message.size() >> 8));
  to.insert(to.end(), message.begin(), message.end());
}

// No check of theirs ends the program in the middle of a conversation.
template <class F> void guarded(F f) {
  try {
    f();
  } catch (const check::Stopped&) {
  }
}

void master(ByteView bytes) {
  guarded([&] {
    hostile::Court court;
    each_step(bytes, [&](std::uint8_t who, ByteView raw) {
      const ConnectionId from = 1 + who % 8;
      if ((who & hangs_up) != 0) return court.hang_up(from);
      if ((who & time_passes) != 0) return court.pass(Duration(raw.size()) * 100 * millisecond);
      if (const auto message = wire::decode<ToMaster>(raw)) court.say(from, *message);
    });
    HOLDS(court.master.view().members.size() <= 8);
  });
}

template <class Variant> void generated(Bytes& to, Rng& rng, std::uint8_t who, const View& view) {
  check::Generate generate(rng);
  hostile::know(generate, rng, view);
  Bytes message;
  wire::encode(generate.message<Variant>(), message);
  if (message.size() < 2000) step(to, who, message);
}

Bytes to_a_master(Rng& rng) {
  Bytes bytes;
  View view;
  view.id = {0, 1};
  for (std::uint8_t who = 0; who < 3; ++who) {
    Bytes message;
    wire::encode(hostile::join_of(""), message);
    step(bytes, who, message);
    view.members.push_back({PeerId(1 + who), "", 0, 0, Role::trainer, {}});
  }
  for (int i = 0; i < 8; ++i) generated<ToMaster>(bytes, rng, std::uint8_t(rng.below(3)), view);
  return bytes;
}

void peer(ByteView bytes) {
  guarded([&] {
    hostile::Household home;
    home.enter(3);
    each_step(bytes, [&](std::uint8_t who, ByteView raw) {
      if (home.gone) return;
      if ((who & time_passes) != 0) {
        home.now += Duration(raw.size()) * 10 * millisecond;
        home.session.tick(home.now);
        home.drain();
      } else if ((who & 1) != 0) {
        const auto message = wire::decode<BetweenPeers>(raw);
        const auto* ready = message ? std::get_if<Ready>(&*message) : nullptr;
        if (ready != nullptr) (void)home.exchange.on_ready(3, *ready), home.drain();
      } else if (const auto message = wire::decode<ToPeer>(raw)) {
        home.hear(*message);
      }
    });
  });
}

Bytes to_a_peer(Rng& rng) {
  Bytes bytes;
  View view;
  view.id = {0, 1};
  for (PeerId id = 1; id <= 3; ++id) view.members.push_back({id, "", 0, 0, Role::trainer, {}});
  for (int i = 0; i < 8; ++i)
    rng.chance(0.3) ? generated<BetweenPeers>(bytes, rng, 1, view) : generated<ToPeer>(bytes, rng, 0, view);
  return bytes;
}

FUZZ_TARGET(master, master, to_a_master);
FUZZ_TARGET(peer, peer, to_a_peer);

}  // namespace
}  // namespace pccl::fuzz
