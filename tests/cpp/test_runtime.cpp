#include "runtime_fixture.hpp"

#include <cstring>

using namespace pccl;
using namespace pccl::testing;

TEST(three_peers_sum_in_place_and_out_of_place) {
  Run run;
  auto peers = run.peers(3);
  for (const std::size_t count :
       {std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{1000}, std::size_t{300000}})
    for (const bool in_place : {false, true}) {
      std::vector<std::shared_ptr<Float32Operation>> operations;
      for (std::size_t i = 0; i < peers.size(); ++i)
        operations.push_back(start_sum(*peers[i], count, float(1 << i), in_place));
      for (auto& operation : operations) {
        const auto result = finish(*operation);
        CHECK_EQ(int(result.outcome.error.code), 0);
        CHECK_EQ(result.outcome.contributors.size(), std::size_t{3});
        CHECK(holds(in_place ? operation->in : operation->out, 7, 3));
      }
    }
}

TEST(many_operations_in_flight_by_tag_posted_in_different_orders) {
  Run run;
  auto peers = run.peers(2);
  std::vector<std::shared_ptr<Float32Operation>> operations;
  for (std::uint32_t tag = 1; tag <= 20; ++tag)
    operations.push_back(start_sum(*peers[0], 50000, float(tag), true, tag));
  for (std::uint32_t tag = 20; tag >= 1; --tag)
    operations.push_back(start_sum(*peers[1], 50000, float(100 * tag), true, tag));
  for (auto& operation : operations) CHECK_EQ(int(finish(*operation).outcome.error.code), 0);
  for (std::uint32_t tag = 1; tag <= 20; ++tag) CHECK(holds(operations[tag - 1]->in, float(101 * tag), 2));
}

TEST(a_peer_that_vanishes_is_left_out_and_the_sum_is_redone) {
  Run run;
  auto peers = run.peers(3);
  for (const bool in_place : {false, true}) {
    auto a = start_sum(*peers[0], 400000, 1, in_place), b = start_sum(*peers[1], 400000, 2, in_place);
    if (peers.size() == 3) {
      auto never_finishes = start_sum(*peers[2], 400000, 4, in_place);
      peers.pop_back();  // without a word to anybody but a closed connection
    }
    for (const auto& operation : {a, b}) {
      const auto result = finish(*operation);
      CHECK_EQ(int(result.outcome.error.code), 0);
      const auto contributors = result.outcome.contributors.size();
      CHECK(contributors == 2 || contributors == 3);
      CHECK(holds(in_place ? operation->in : operation->out, contributors == 2 ? 3 : 7, contributors));
    }
  }
}

TEST(a_newcomer_comes_in_at_the_boundary) {
  Run run;
  auto peers = run.peers(2);
  auto third = run.peer(1);
  std::vector<std::shared_ptr<Promise<BoundaryResult>>> passed;
  for (auto& peer : peers) passed.push_back(peer->enter_boundary(3, 10 * second));
  CHECK_EQ(int(admitted(*third).code), 0);
  for (auto& promise : passed) {
    CHECK(promise->wait_for(10 * second));
    CHECK(promise->get().changed);
  }
  auto a = start_sum(*peers[0], 10, 1, true), b = start_sum(*peers[1], 10, 2, true),
       c = start_sum(*third, 10, 4, true);
  for (const auto& operation : {a, b, c}) {
    CHECK_EQ(int(finish(*operation).outcome.error.code), 0);
    CHECK(holds(operation->in, 7, 3));
  }
}

TEST(a_boundary_waits_for_who_gave_up_and_comes_back) {
  Run run;
  auto peers = run.peers(2);
  const auto late = peers[0]->enter_boundary(0, 100 * millisecond);
  REQUIRE(late->wait_for(10 * second));
  CHECK_EQ(int(late->get().error.code), int(ErrorCode::timeout));
  const auto left = peers[0]->enter_boundary(0, never);
  peers[0]->leave_boundary(left);
  REQUIRE(left->done());
  CHECK_EQ(int(left->get().error.code), int(ErrorCode::cancelled));
  const auto other = peers[1]->enter_boundary(0, never);
  CHECK(!other->wait_for(200 * millisecond));
  const auto back = peers[0]->enter_boundary(0, never);
  for (const auto& promise : {other, back}) {
    REQUIRE(promise->wait_for(10 * second));
    CHECK_EQ(int(promise->get().error.code), 0);
  }
}

TEST(different_counts_are_named_to_both) {
  Run run;
  auto peers = run.peers(2);
  auto a = start_sum(*peers[0], 1000, 1, false), b = start_sum(*peers[1], 2000, 2, false);
  for (const auto& operation : {a, b}) {
    const auto result = finish(*operation);
    CHECK_EQ(int(result.outcome.error.code), int(ErrorCode::mismatch));
    CHECK(result.outcome.error.text.find("1000 x float32") != std::string::npos);
    CHECK(result.outcome.error.text.find("2000 x float32") != std::string::npos);
  }
  auto c = start_sum(*peers[0], 10, 1, true), d = start_sum(*peers[1], 10, 2, true);
  CHECK_EQ(int(finish(*c).outcome.error.code), 0);
  CHECK_EQ(int(finish(*d).outcome.error.code), 0);
}

TEST(a_cancelled_operation_fails_for_all_and_inputs_are_intact) {
  Run run;
  auto peers = run.peers(2);
  auto a = start_sum(*peers[0], 100000, 1, true);
  peers[0]->cancel(a->handle, "the test wants it");
  auto b = start_sum(*peers[1], 100000, 2, true);
  const auto who = "peer " + std::to_string(peers[0]->status(false).peer);
  for (const auto& operation : {a, b}) {
    const auto error = finish(*operation).outcome.error;
    CHECK_EQ(int(error.code), int(ErrorCode::cancelled));
    CHECK_EQ(error.text, who + " cancelled all_reduce, call 0 of group 0: the test wants it");
  }
  CHECK(holds(a->in, 1, 1));
  CHECK(holds(b->in, 2, 1));
}

// What was measured for it keeps stripes full, and what has been posted since has to find room on them. That
// nothing more is sent only to measure is counted, not timed: on a busy machine everything takes long.
TEST(operations_go_on_where_a_boundary_with_probes_failed) {
  Run run;
  std::vector<std::unique_ptr<PeerRuntime>> peers;
  for (const auto* host : {"here", "there"})  // links inside one host are not measured
    peers.push_back(run.peer(2, [&](PeerOptions& o) { o.join.host_id = host; }));
  for (const auto& peer : peers) REQUIRE(!admitted(*peer));
  std::vector<std::shared_ptr<Promise<BoundaryResult>>> entered;
  for (const auto& peer : peers) entered.push_back(peer->enter_boundary(0, never, 2000));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  for (std::size_t i = 0; i < 2; ++i) peers[i]->leave_boundary(entered[i]);
  for (const auto& each : entered) {
    REQUIRE(each->wait_for(10 * second));
    CHECK_EQ(int(each->get().error.code), int(ErrorCode::cancelled));
  }
  const auto sent = [](PeerRuntime& peer) { return peer.status(true).links.begin()->second.bytes_out; };
  std::vector<std::uint64_t> before;
  for (const auto& peer : peers) before.push_back(sent(*peer));
  std::vector<std::shared_ptr<Float32Operation>> sums;
  for (const auto& peer : peers) sums.push_back(start_sum(*peer, 4'000'000, 1, false));
  for (const auto& sum : sums) {
    const auto result = finish(*sum);
    CHECK_EQ(int(result.outcome.error.code), 0);
    CHECK(holds(sum->out, 2, 2));
  }
  const std::uint64_t chunks = 4'000'000 * sizeof(float), queued = 16u << 20;
  for (std::size_t i = 0; i < 2; ++i) CHECK(sent(*peers[i]) - before[i] < chunks + queued);
}

void only_those_who_know_the_secret_come_in(bool encrypt) {
  const net::Secret secret(Bytes(32, 7), encrypt), wrong(Bytes(32, 8), encrypt);
  const net::Secret other_way(Bytes(32, 7), !encrypt);
  Run run({}, secret);
  auto disagrees = run.peer(1, [&](PeerOptions& o) { o.secret = other_way; });
  CHECK_EQ(int(admitted(*disagrees).code), int(ErrorCode::authentication));
  auto stranger = run.peer(1, [&](PeerOptions& o) { o.secret = wrong; });
  CHECK_EQ(int(admitted(*stranger).code), int(ErrorCode::authentication));
  auto without = run.peer(1);
  CHECK_EQ(int(admitted(*without).code), int(ErrorCode::authentication));
  const auto with_secret = [&](PeerOptions& o) {
    o.secret = secret;
    o.listen = "127.0.0.1:0";
  };
  auto a = run.peer(2, with_secret), b = run.peer(2, with_secret);
  CHECK_EQ(int(admitted(*a).code), 0);
  CHECK_EQ(int(admitted(*b).code), 0);
  auto x = start_sum(*a, 100000, 1, true), y = start_sum(*b, 100000, 2, true);
  CHECK_EQ(int(finish(*x).outcome.error.code), 0);
  CHECK_EQ(int(finish(*y).outcome.error.code), 0);
  CHECK(holds(x->in, 3, 2));
}

TEST(with_a_secret_only_those_who_know_it_come_in) { only_those_who_know_the_secret_come_in(true); }

TEST(a_secret_that_does_not_encrypt_keeps_others_out_as_well) {
  only_those_who_know_the_secret_come_in(false);
}

TEST(the_master_dies_and_everybody_is_told) {
  Timing timing;
  timing.master_lost = 300 * millisecond;
  Run run(timing);
  auto peers = run.peers(2);
  auto a = start_sum(*peers[0], 10, 1, true);
  run.master->stop();
  CHECK_EQ(int(finish(*a).outcome.error.code), int(ErrorCode::master_lost));
  auto b = start_sum(*peers[1], 10, 1, true);
  const auto code = finish(*b).outcome.error.code;
  // Posted before its end it held the whole result: the other's part had been waiting here.
  CHECK(code == ErrorCode::master_lost || code == ErrorCode::outcome_unknown);
}

TEST(nobody_answers_at_the_address) {
  Timing timing;
  timing.master_lost = 100 * millisecond;
  PeerOptions options;
  options.master = "127.0.0.1:1";
  options.timing = timing;
  auto peer = PeerRuntime::create(options);
  REQUIRE(bool(peer));
  const auto error = admitted(**peer);
  CHECK_EQ(int(error.code), int(ErrorCode::connect));
  CHECK(error.text.find("127.0.0.1:1") != std::string::npos);
}

TEST(calls_after_the_end_are_answered) {
  Run run;
  auto peers = run.peers(2);
  peers[0]->close();
  auto a = start_sum(*peers[0], 10, 1, true);
  CHECK_EQ(int(finish(*a).outcome.error.code), int(ErrorCode::closed));
  const auto boundary = peers[0]->enter_boundary(0, second);
  CHECK(boundary->wait_for(second));
  CHECK(bool(boundary->get().error));
}

TEST(two_threads_close_at_once) {
  Run run;
  for (int round = 0; round < 10; ++round) {
    auto peer = run.peer(1);
    CHECK_EQ(int(admitted(*peer).code), 0);
    std::thread other([&] { peer->close(); });
    peer->close();
    other.join();
  }
}
