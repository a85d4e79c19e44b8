// What a master says that no honest one would.
#include "household.hpp"

namespace pccl::hostile {
namespace {

TEST(a_commit_of_what_is_not_held) {
  for (const bool fails : {false, true}) {
    Household home;
    home.enter(3);
    const auto key = home.post(reduce(10));
    REQUIRE(key.has_value());
    const Verdict verdict{*key, home.session.view().id, ErrorCode::none, 0, false, {}, ""};
    if (fails)
      home.hear(Failed{5, verdict});
    else
      home.hear(Commit{5, 0, verdict});
    CHECK_EQ(home.delivered, 1);  // with an error: Household looks
  }
}

TEST(rings_are_permutations) {
  Household home;
  home.enter(3);
  for (const auto& order :
       std::vector<std::vector<PeerId>>{{1, 1, 3}, {1, 2}, {2, 2, 2}, {7, 8, 9}, {3, 2, 1, 3}, {1, 3, 2}}) {
    home.change_view([&](View& view) { view.order = order; });
    const auto ring = home.session.ring();
    CHECK_EQ(std::set(ring.begin(), ring.end()), (std::set<PeerId>{1, 2, 3}));
    CHECK_EQ(ring.size(), 3);
  }
  home.change_view([](View& view) { view.members.push_back(view.members.front()); });
  CHECK(home.gone);
}

TEST(hints_that_make_no_sense) {
  for (const std::uint32_t chunk_bytes : {1u, 63u, 5000u, 0xffffffffu}) {
    Household home;
    home.enter(3);
    home.change_view([&](View& view) { view.hints = {Algorithm::two_level, chunk_bytes, 255}; });
    const auto key = home.post(reduce(100'000));
    REQUIRE(key.has_value());
    const auto* attempt = home.exchange.find(*key);
    REQUIRE(attempt != nullptr);
    CHECK(attempt->descriptor.chunk_bytes >= limits::chunk_bytes_min);
    CHECK(attempt->descriptor.chunk_bytes <= limits::chunk_bytes_max / 2);
  }
}

TEST(plans_of_another_state) {
  Household home;
  home.enter(3);
  Descriptor sync;
  sync.call = Call::sync_state;
  const auto key = home.post(sync);
  REQUIRE(key.has_value());
  StatePlan plan{home.session.view().id, *key, 0, {}};
  home.hear(plan);  // Household offers two entries, and looks at what is elected
  plan.entries.resize(3);
  home.hear(plan);
  plan.entries.resize(2);
  plan.entries[1].entry.count = 9;
  home.hear(plan);
  CHECK(home.session.find(*key)->state == OperationState::running);
  plan.entries[1].entry.count = 0;
  home.hear(plan);
  CHECK(home.session.find(*key)->state == OperationState::held);
}

}  // namespace
}  // namespace pccl::hostile
