// One master and thousands of peers: exactly one message to each per operation, and no work that grows with
// the square of their number. Times are printed, not checked.
#include <chrono>
#include <cstdio>
#include <string>

#include "check.hpp"
#include "protocol/master.hpp"

namespace pccl {

namespace {

constexpr std::uint32_t peers_count = 2000;
constexpr Instant start = 1000 * second;

// All peers of a run, seen from their master: what they say goes in, what it says is counted.
class Crowd {
 public:
  Crowd()
      : master_(MasterConfig{.timing = {},
                             .rules = {},
                             .role = Role::trainer,
                             .run = 7,
                             .next_run = 7,
                             .restarted = false,
                             .stored = {}},
                start) {
    for (std::uint32_t i = 0; i < peers_count; ++i) {
      Join join;
      join.min_islands = peers_count;
      join.reachable_at = {{"10.0.0.1", std::uint16_t(1 + i)}};
      say(i, join);
    }
  }

  // Applies the effects; answers proofs at once.
  void say(std::uint32_t i, const ToMaster& message) {
    master_.on(i + 1, message, now);
    for (auto effects = master_.take_effects(); !effects.empty(); effects = master_.take_effects())
      for (auto& effect : effects)
        if (auto* send = std::get_if<master_effect::Send>(&effect)) take(*send);
  }

  std::size_t count(std::size_t kind) const { return kind < sent_.size() ? sent_[kind] : 0; }
  template <class M> std::size_t sent() const { return count(ToPeer(M{}).index()); }
  std::size_t all() const {
    std::size_t sum = 0;
    for (const auto n : sent_) sum += n;
    return sum;
  }
  void forget() { sent_.clear(); }
  const View& view() const { return master_.view(); }
  std::uint64_t seen() const { return seen_; }
  std::size_t proven() const { return proven_; }  // links asked for at the door

  Instant now = start;

 private:
  void take(const master_effect::Send& send) {
    sent_.resize(std::variant_size_v<ToPeer>);
    ++sent_[send.message.index()];
    if (const auto* prove = std::get_if<Prove>(&send.message)) {
      proofs_.push_back({std::uint32_t(send.to - 1), prove->round});
      proven_ += prove->targets.size();
    }
    if (const auto* commit = std::get_if<Commit>(&send.message)) seen_ = commit->index;
    for (const auto& [peer, round] : std::exchange(proofs_, {}))
      master_.on(peer + 1, Reachable{round, {}, {}}, now);
  }

  Master master_;
  std::vector<std::size_t> sent_;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> proofs_;
  std::uint64_t seen_ = 0;
  std::size_t proven_ = 0;
};

class Stopwatch {
 public:
  double ms() const {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - from_).count();
  }

 private:
  std::chrono::steady_clock::time_point from_ = std::chrono::steady_clock::now();
};

}  // namespace

TEST(who_waits_at_the_door_proves_links_to_its_neighbours_only) {
  const Crowd crowd;
  REQUIRE(crowd.view().members.size() == peers_count);
  CHECK(crowd.proven() >= peers_count);
  CHECK(crowd.proven() <= 2 * peers_count + limits::mesh_max * limits::mesh_max / 2);
}

TEST(an_operation_is_one_message_to_each_peer) {
  Crowd crowd;
  REQUIRE(crowd.view().members.size() == peers_count);
  CHECK_EQ(crowd.sent<ViewMessage>(), peers_count);
  constexpr std::uint32_t operations = 50;
  const Stopwatch watch;
  for (std::uint32_t i = 0; i < operations; ++i) {
    crowd.forget();
    const auto seen = crowd.seen();
    for (std::uint32_t p = 0; p < peers_count; ++p) {
      if (p + 1 == peers_count) CHECK_EQ(crowd.all(), 0);
      crowd.say(p, Done{crowd.view().id, {i % 2 == 0 ? Scope::group : Scope::run, 0, {0, 0, i}}, seen});
    }
    CHECK_EQ(crowd.sent<Commit>(), peers_count);
    CHECK_EQ(crowd.all(), peers_count);
  }
  std::printf("  %u peers: %.3f ms of the master's time per operation\n", peers_count,
              watch.ms() / operations);
}

TEST(all_wait_in_one_long_operation) {
  Crowd crowd;
  REQUIRE(crowd.view().members.size() == peers_count);
  const OpKey key{Scope::group, 0, {0, 0, 0}};
  const Stopwatch watch;
  constexpr int seconds = 5;
  crowd.forget();
  for (int i = 0; i < seconds; ++i) {
    for (std::uint32_t p = 0; p < peers_count; ++p)
      crowd.say(p, Waiting{crowd.view().id, true, false, {{key, Call::all_reduce, false}}});
    CHECK_EQ(crowd.sent<Missing>(), 0);  // all wait: nobody is missing
  }
  CHECK_EQ(crowd.sent<Failed>(), 0);
  std::printf("  %u peers that all wait: %.3f ms of the master's time per second\n", peers_count,
              watch.ms() / seconds);
}

TEST(a_boundary_is_one_message_to_each_peer) {
  Crowd crowd;
  REQUIRE(crowd.view().members.size() == peers_count);
  const Stopwatch watch;
  constexpr std::uint32_t boundaries = 10;
  for (std::uint32_t i = 0; i < boundaries; ++i) {
    crowd.forget();
    for (std::uint32_t p = 0; p < peers_count; ++p)
      crowd.say(p, EnterBoundary{crowd.view().id, i + 1, 1, 0, false});
    CHECK_EQ(crowd.sent<Passed>(), peers_count);
    CHECK_EQ(crowd.all(), peers_count);
  }
  std::printf("  %u peers: %.3f ms of the master's time per boundary\n", peers_count,
              watch.ms() / boundaries);
}

TEST(an_election_among_all) {
  Crowd crowd;
  REQUIRE(crowd.view().members.size() == peers_count);
  const OpKey key{Scope::group, 0, {0, 0, 0}};
  crowd.forget();
  const Stopwatch watch;
  for (std::uint32_t p = 0; p < peers_count; ++p) {
    StateOffer offer{crowd.view().id, key, 0, 3, Strategy::enforce_popular, {}};
    for (int i = 0; i < 10; ++i)
      offer.entries.push_back({"layer." + std::to_string(i), DType::float32, 1000, {std::uint8_t(p % 3)}});
    crowd.say(p, offer);
  }
  CHECK_EQ(crowd.sent<StatePlan>(), peers_count);
  std::printf("  %u peers: %.3f ms of the master's time per election of 10 tensors\n", peers_count,
              watch.ms());
}

}  // namespace pccl
