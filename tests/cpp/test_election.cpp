// Which content of a shared state wins, who gives it, and what makes an election impossible.
#include "check.hpp"
#include "protocol/election.hpp"

namespace pccl {

namespace {

StateEntry entry(const char* name, std::uint8_t content, std::uint64_t count = 1000) {
  StateEntry e{name, DType::float32, count, {}};
  e.root[0] = content;
  return e;
}

// A state of two tensors, named by their contents.
StateOffer offer(std::uint64_t revision, std::uint8_t a, std::uint8_t b,
                 Strategy strategy = Strategy::enforce_popular) {
  StateOffer o;
  o.revision = revision;
  o.strategy = strategy;
  o.entries = {entry("a", a), entry("b", b)};
  return o;
}

using Offers = std::map<PeerId, StateOffer>;

}  // namespace

TEST(all_equal) {
  auto election = elect({{1, offer(7, 1, 1)}, {2, offer(7, 1, 1)}});
  REQUIRE(bool(election));
  CHECK_EQ(election->revision, 7);
  CHECK_EQ(election->winner, 1);
  REQUIRE(election->entries.size() == 2);
  CHECK_EQ(election->entries[0].donors, (std::vector<PeerId>{1, 2}));
}

TEST(the_highest_revision_wins_over_popularity) {
  auto election = elect({{1, offer(3, 1, 1)}, {2, offer(3, 1, 1)}, {5, offer(4, 2, 1)}});
  REQUIRE(bool(election));
  CHECK_EQ(election->winner, 5);
  CHECK_EQ(election->revision, 4);
  CHECK_EQ(election->entries[0].donors, (std::vector<PeerId>{5}));
  // Tensor b is the same on the others: they give it too, the winner first.
  CHECK_EQ(election->entries[1].donors, (std::vector<PeerId>{5, 1, 2}));
}

TEST(the_most_popular_content_wins) {
  auto election = elect({{1, offer(3, 9, 1)}, {2, offer(3, 1, 1)}, {5, offer(3, 1, 1)}});
  REQUIRE(bool(election));
  CHECK_EQ(election->winner, 2);
  CHECK_EQ(int(election->entries[0].entry.root[0]), 1);
}

TEST(popularity_is_that_of_the_whole_content) {
  // Most hold a = 1 and most hold b = 1, but nobody beside peer 4 holds both.
  auto election = elect({{1, offer(3, 1, 2)}, {2, offer(3, 1, 3)}, {3, offer(3, 2, 1)}, {4, offer(3, 1, 1)}});
  REQUIRE(bool(election));
  CHECK_EQ(election->winner, 1);
  CHECK_EQ(int(election->entries[0].entry.root[0]), 1);
  CHECK_EQ(int(election->entries[1].entry.root[0]), 2);
}

TEST(ties_go_to_the_smallest_peer) {
  auto election = elect({{7, offer(3, 1, 1)}, {3, offer(3, 2, 2)}, {9, offer(3, 1, 1)}, {4, offer(3, 2, 2)}});
  REQUIRE(bool(election));
  CHECK_EQ(election->winner, 3);
}

TEST(send_only_wins_over_revision_and_popularity) {
  auto election = elect({{1, offer(9, 1, 1)}, {2, offer(9, 1, 1)}, {3, offer(2, 3, 3, Strategy::send_only)}});
  REQUIRE(bool(election));
  CHECK_EQ(election->winner, 3);
  CHECK_EQ(election->revision, 2);
}

TEST(among_senders_the_rules_are_the_same) {
  const Offers offers = {{1, offer(9, 1, 1)},
                         {2, offer(2, 3, 3, Strategy::send_only)},
                         {3, offer(4, 5, 5, Strategy::send_only)},
                         {4, offer(4, 6, 6, Strategy::send_only)},
                         {5, offer(4, 6, 6, Strategy::send_only)}};
  auto election = elect(offers);
  REQUIRE(bool(election));
  CHECK_EQ(election->winner, 4);
}

TEST(receive_only_never_wins) {
  auto election = elect({{1, offer(9, 1, 1, Strategy::receive_only)},
                         {2, offer(9, 1, 1, Strategy::receive_only)},
                         {3, offer(2, 3, 3)}});
  REQUIRE(bool(election));
  CHECK_EQ(election->winner, 3);
  CHECK_EQ(election->entries[0].donors, (std::vector<PeerId>{3}));
}

TEST(nobody_has_the_content) {
  auto election =
      elect({{1, offer(1, 1, 1, Strategy::receive_only)}, {2, offer(1, 1, 1, Strategy::receive_only)}});
  REQUIRE(!election);
  CHECK(election.error().code == ErrorCode::mismatch);
  CHECK_EQ(election.error().text, "sync_shared_state: every peer is receive_only, so nobody has the content");
}

TEST(layouts_must_be_the_same) {
  auto renamed = offer(1, 1, 1);
  renamed.entries[1] = entry("c", 1);
  auto resized = offer(1, 1, 1);
  resized.entries[1].count = 1001;
  auto retyped = offer(1, 1, 1);
  retyped.entries[0].dtype = DType::float64;
  auto shorter = offer(1, 1, 1);
  shorter.entries.pop_back();
  const auto text = [](const StateOffer& other) {
    auto election = elect({{1, offer(1, 1, 1)}, {2, other}});
    return election ? std::string() : election.error().text;
  };
  CHECK_EQ(text(renamed), "sync_shared_state: peers 1 and 2 differ in names: 'b' and 'c'");
  CHECK_EQ(text(resized),
           "sync_shared_state: peers 1 and 2 differ in 'b': 1000 x float32 and 1001 x float32");
  CHECK_EQ(text(retyped),
           "sync_shared_state: peers 1 and 2 differ in 'a': 1000 x float32 and 1000 x float64");
  CHECK_EQ(text(shorter), "sync_shared_state: peers 1 and 2 differ in the number of tensors: 2 and 1");
}

TEST(donors_are_bounded) {
  Offers offers;
  for (PeerId peer = 1; peer <= 200; ++peer) offers[peer] = offer(1, 1, 1);
  auto election = elect(offers);
  REQUIRE(bool(election));
  CHECK_EQ(election->entries[0].donors.size(), limits::peers_named_max);
  CHECK_EQ(election->entries[0].donors.front(), 1);
}

TEST(a_state_without_tensors) {
  auto election = elect({{2, StateOffer{}}, {3, StateOffer{}}});
  REQUIRE(bool(election));
  CHECK_EQ(election->winner, 2);
  CHECK(election->entries.empty());
}

TEST(who_is_older_and_differs_in_layout_must_go) {
  auto other = offer(0, 1, 1);
  other.entries[1].count = 7;
  const auto outsiders = outsiders_of({{1, offer(3, 1, 1)}, {2, offer(3, 2, 1)}, {5, other}});
  CHECK_EQ(outsiders.peers, (std::vector<PeerId>{5}));
  CHECK(outsiders.why.find("'b': 1000 x float32 and 7 x float32") != std::string::npos);
  CHECK(outsiders_of({{1, offer(3, 1, 1)}, {5, offer(0, 2, 1)}}).peers.empty());  // content may differ
}

TEST(nobody_goes_where_peers_of_one_revision_differ) {
  auto other = offer(3, 1, 1), third = offer(1, 1, 1);
  other.entries.pop_back();
  third.entries.pop_back();
  const Offers offers{{1, offer(3, 1, 1)}, {2, other}, {3, third}};
  CHECK(outsiders_of(offers).peers.empty());
  CHECK(!bool(elect(offers)));
}

TEST(one_that_claims_to_be_newer_does_not_end_the_run) {
  auto other = offer(9, 1, 1);
  other.entries.pop_back();
  CHECK(outsiders_of({{1, offer(3, 1, 1)}, {2, offer(3, 1, 1)}, {5, other}}).peers.empty());
  other.strategy = Strategy::receive_only;
  CHECK(outsiders_of({{1, offer(3, 1, 1)}, {2, offer(3, 1, 1)}, {5, other}}).peers.empty());
}

}  // namespace pccl
