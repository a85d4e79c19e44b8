// What the averages of links make of probes, transfers, time and nonsense.
#include "check.hpp"
#include "protocol/link_matrix.hpp"

namespace pccl {

namespace {
constexpr std::uint64_t mb = 1'000'000;

LinkSample probe(std::uint64_t bandwidth, Duration rtt = 0) { return {{bandwidth, rtt}, Evidence::probe}; }
LinkSample transfer(std::uint64_t bandwidth) { return {{bandwidth, 0}, Evidence::transfer}; }
LinkSample at_least(std::uint64_t bandwidth, Duration rtt = 0) {
  return {{bandwidth, rtt}, Evidence::at_least};
}
}  // namespace

TEST(the_first_sample_is_the_estimate) {
  LinkMatrix matrix;
  matrix.learn(1, 2, probe(100 * mb, millisecond), 5);
  CHECK(matrix.at(1, 2) == (Link{100 * mb, millisecond}));
  CHECK(matrix.at(2, 1) == Link{});  // directions are apart
  CHECK(matrix.at(1, 3) == Link{});
  CHECK(matrix.at(9, 1) == Link{});
}

TEST(a_probe_counts_half_and_a_transfer_a_quarter) {
  LinkMatrix matrix;
  matrix.learn(1, 2, probe(100 * mb), 0);
  matrix.learn(1, 2, probe(200 * mb), 0);
  CHECK_EQ(matrix.at(1, 2).bandwidth, 150 * mb);
  matrix.learn(1, 2, transfer(110 * mb), 0);
  CHECK_EQ(matrix.at(1, 2).bandwidth, 140 * mb);
  matrix.learn(1, 2, probe(0, 2 * millisecond), 0);  // the bandwidth was not measured: it stays
  CHECK(matrix.at(1, 2) == (Link{140 * mb, 2 * millisecond}));
}

TEST(estimates_lose_weight_with_age) {
  LinkMatrix matrix;
  matrix.learn(1, 2, probe(100 * mb), 0);
  matrix.learn(1, 2, probe(200 * mb), 120 * second);  // a quarter against a half
  CHECK_EQ(matrix.at(1, 2).bandwidth, 166'666'666);
  matrix.learn(1, 2, transfer(50 * mb), 3600 * second);
  CHECK_EQ(matrix.at(1, 2).bandwidth, 50 * mb);
  matrix.learn(1, 2, transfer(50 * mb), 0);  // a clock that went back is no age
  CHECK_EQ(matrix.at(1, 2).bandwidth, 50 * mb);
}

// In a pipelined ring every link carries what the slowest one lets through.
TEST(a_transfer_that_waited_for_data_never_makes_a_link_slower) {
  LinkMatrix matrix;
  matrix.learn(1, 2, at_least(10 * mb, millisecond), 0);
  CHECK(matrix.at(1, 2) == (Link{0, millisecond}));
  matrix.learn(1, 2, probe(100 * mb), 0);
  matrix.learn(1, 2, at_least(10 * mb), 0);
  CHECK_EQ(matrix.at(1, 2).bandwidth, 100 * mb);
  matrix.learn(1, 2, at_least(140 * mb), 0);
  CHECK_EQ(matrix.at(1, 2).bandwidth, 110 * mb);
}

TEST(who_left_is_forgotten) {
  LinkMatrix matrix;
  for (PeerId from = 1; from <= 4; ++from)
    for (PeerId to = 1; to <= 4; ++to) matrix.learn(from, to, probe(mb * from), 0);
  matrix.forget(3);
  for (PeerId peer = 1; peer <= 4; ++peer) {
    CHECK(matrix.at(peer, 3) == Link{});
    CHECK(matrix.at(3, peer) == Link{});
    CHECK(matrix.at(peer, peer) == Link{});  // nobody has a link to itself
  }
  CHECK_EQ(matrix.at(4, 1).bandwidth, 4 * mb);
  CHECK_EQ(matrix.row(1).size(), 2);
}

TEST(reports_that_make_no_sense_are_bounded) {
  LinkMatrix matrix;
  for (int i = 0; i < 3; ++i) matrix.learn(1, 2, probe(UINT64_MAX, INT64_MAX), i);
  CHECK(matrix.at(1, 2) == (Link{std::uint64_t{1} << 50, 4 * second}));
  matrix.learn(1, 3, probe(0, -5), 0);
  matrix.learn(0, 3, probe(5, 5), 0);
  matrix.learn(3, 0, probe(5, 5), 0);
  CHECK_EQ(matrix.row(1).size(), 1);
  CHECK(matrix.at(0, 3) == Link{});
  CHECK(matrix.at(3, 0) == Link{});
}

TEST(a_peer_s_row_keeps_what_was_heard_of_last) {
  LinkMatrix matrix;
  for (PeerId to = 2; to < 402; ++to) matrix.learn(1, to, probe(mb), Instant(to));
  CHECK_EQ(matrix.row(1).size(), 256);
  CHECK(matrix.at(1, 145) == Link{});
  CHECK_EQ(matrix.at(1, 146).bandwidth, mb);
  CHECK_EQ(matrix.at(1, 401).bandwidth, mb);
}

}  // namespace pccl
