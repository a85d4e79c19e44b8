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

// Two islands of two ranks: peers 1 and 2 in group 0, 11 and 12 in group 1. "a" has odd ids.
const IslandOf by_parity = [](PeerId peer) { return std::string(peer % 2 == 1 ? "a" : "b"); };

TEST(an_island_wins_in_all_groups_or_in_none) {
  // Alone, group 0 would elect peer 1 of "a" and group 1 peer 10 of "b": shards of two models.
  auto elected = elect_islands(
      {{0, {{1, offer(0, 1, 1)}, {4, offer(0, 2, 2)}}}, {1, {{10, offer(0, 3, 3)}, {11, offer(0, 4, 4)}}}},
      by_parity);
  REQUIRE(bool(elected));
  CHECK_EQ(elected->at(0).winner, 1);
  CHECK_EQ(elected->at(1).winner, 11);
}

TEST(an_island_whose_ranks_are_of_two_revisions_does_not_win) {
  auto elected = elect_islands(
      {{0, {{1, offer(9, 1, 1)}, {2, offer(6, 2, 2)}}}, {1, {{11, offer(5, 3, 3)}, {12, offer(6, 4, 4)}}}},
      by_parity);
  REQUIRE(bool(elected));
  CHECK_EQ(elected->at(0).winner, 2);
  CHECK_EQ(elected->at(1).winner, 12);
  CHECK_EQ(elected->at(0).revision, 6);
  CHECK_EQ(elected->at(1).revision, 6);
  // Both took the content of revision 9 in group 0, and then the island that had it was gone.
  elected = elect_islands(
      {{0, {{1, offer(9, 1, 1)}, {2, offer(9, 1, 1)}}}, {1, {{11, offer(0, 3, 3)}, {12, offer(0, 3, 3)}}}},
      by_parity);
  REQUIRE(!elected);
  CHECK(elected.error().text.find("no island has the whole content") != std::string::npos);
}

TEST(popularity_is_that_of_whole_islands) {
  const IslandOf thirds = [](PeerId peer) { return std::to_string(peer % 10); };
  auto elected = elect_islands({{0, {{1, offer(3, 9, 9)}, {2, offer(3, 1, 1)}, {3, offer(3, 1, 1)}}},
                                {1, {{11, offer(3, 7, 7)}, {12, offer(3, 7, 7)}, {13, offer(3, 7, 7)}}}},
                               thirds);
  REQUIRE(bool(elected));
  CHECK_EQ(elected->at(0).winner, 2);
  CHECK_EQ(elected->at(1).winner, 12);
}

TEST(an_island_with_a_torn_rank_does_not_win) {
  const auto torn = Strategy::receive_only;
  auto elected = elect_islands({{0, {{1, offer(9, 1, 1)}, {2, offer(5, 2, 2)}}},
                                {1, {{11, offer(9, 3, 3, torn)}, {12, offer(5, 4, 4)}}}},
                               by_parity);
  REQUIRE(bool(elected));
  CHECK_EQ(elected->at(0).winner, 2);
  CHECK_EQ(elected->at(1).winner, 12);
  elected = elect_islands({{0, {{1, offer(9, 1, 1)}, {2, offer(5, 2, 2, torn)}}},
                           {1, {{11, offer(9, 3, 3, torn)}, {12, offer(5, 4, 4)}}}},
                          by_parity);
  REQUIRE(!elected);
  CHECK(elected.error().text.find("no island has the whole content") != std::string::npos);
}

TEST(groups_without_a_rank_of_the_winner_elect_among_the_others) {
  auto elected = elect_islands({{0, {{1, offer(2, 1, 1)}}}, {1, {{12, offer(7, 4, 4)}}}}, by_parity);
  REQUIRE(bool(elected));
  CHECK_EQ(elected->at(0).winner, 1);
  CHECK_EQ(elected->at(1).winner, 12);
}

}  // namespace pccl
