// A master that hears valid messages at random, from connections that come and go.
#include "court.hpp"

namespace pccl::hostile {
namespace {

MasterConfig random_config(Rng& rng) {
  MasterConfig config;
  config.restarted = rng.chance(0.3);
  if (config.restarted && rng.chance(0.5)) config.run = 0;
  if (config.restarted && rng.chance(0.3)) {
    config.stored = Stored{3, {}};
    config.stored->view.id = {3, 7};
    config.stored->view.members.push_back({5, "a", 0, 0, Role::trainer, {{"127.0.0.1", 1}}});
  }
  return config;
}

Join random_join(Rng& rng) {
  auto join =
      join_of(rng.chance(0.5) ? "" : std::string(1, char('a' + rng.below(6))), std::uint32_t(rng.below(2)));
  join.role = rng.chance(0.2) ? Role::keeper : Role::trainer;
  join.island_size = std::uint16_t(1 + rng.below(2));
  join.island_rank = std::uint16_t(rng.below(join.island_size));
  return join;
}

// Connections are numbered from 1 to `last`: a registration comes on a new one, anything else on any.
void say_something(Court& court, Rng& rng, Generate& generate, ConnectionId& last) {
  const ConnectionId from = 1 + rng.below(last);
  auto message = generate.message<ToMaster>();
  if (auto* registration = std::get_if<Register>(&message)) {
    if (rng.chance(0.8)) registration->run = 1;
    if (rng.chance(0.4) && court.peers.contains(from))
      registration->peer = court.peers.at(from), registration->view = court.master.view();
    court.say(++last, message);
  } else {
    court.say(from, message);
  }
  if (rng.chance(0.03)) court.hang_up(1 + rng.below(last));
  if (rng.chance(0.1)) court.pass(Duration(rng.below(rng.chance(0.05) ? 3 * second : 20 * millisecond)));
}

TEST(masters_hear_anything) {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    Rng rng(seed);
    Court court(random_config(rng));
    ConnectionId last = 0;
    std::size_t members_most = 0;
    for (int i = 0; i < 700; ++i) {
      Generate generate(rng);
      know(generate, rng, court.master.view());
      court.honest = rng.chance(0.9);
      if (last < 3 || rng.chance(0.08))
        court.say(++last, random_join(rng));
      else
        say_something(court, rng, generate, last);
      members_most = std::max(members_most, court.master.view().members.size());
    }
    CHECK(members_most <= std::size_t(last));
  }
}

}  // namespace
}  // namespace pccl::hostile
