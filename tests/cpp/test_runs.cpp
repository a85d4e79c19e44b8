// One master, several runs: they know nothing of each other, and are forgotten with their last peer.
#include "runtime/completions.hpp"
#include "runtime_fixture.hpp"

using namespace pccl;
using namespace pccl::testing;

namespace {
std::function<void(PeerOptions&)> in_run(const char* name, std::uint32_t start_rank = no_start_rank) {
  return [=](PeerOptions& options) {
    options.join.run_name = name;
    options.join.start_rank = start_rank;
  };
}

// How many peers the master counts in the run, once that is so.
bool comes_to(const Run& run, const std::string& name, std::size_t peers) {
  const auto until = monotonic_now() + 10 * second;
  while (monotonic_now() < until) {
    const auto all = run.master->status().peers;
    const auto it = all.find(name);
    if ((it == all.end() ? 0 : it->second) == peers) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}
}  // namespace

TEST(peers_of_two_runs_sum_for_themselves) {
  const Run run;
  auto a = run.peer(2, in_run("a")), b = run.peer(2, in_run("b")), c = run.peer(2, in_run("a")),
       d = run.peer(2, in_run("b"));
  for (auto* peer : {a.get(), b.get(), c.get(), d.get()}) CHECK(!admitted(*peer));
  auto of_a = start_sum(*a, 100, 1, true), of_b = start_sum(*b, 100, 10, true),
       of_c = start_sum(*c, 100, 2, true), of_d = start_sum(*d, 100, 20, true);
  for (auto* operation : {of_a.get(), of_b.get(), of_c.get(), of_d.get()})
    CHECK(!finish(*operation).outcome.error);
  CHECK_EQ(of_a->in[0], 3.0f);
  CHECK_EQ(of_c->in[0], 3.0f);
  CHECK_EQ(of_b->in[0], 30.0f);
  CHECK_EQ(of_d->in[0], 30.0f);
  CHECK(run.master->status().rosters.at(Role::trainer).view.members.empty());  // of the run without a name
  a->leave(second);
  CHECK(comes_to(run, "a", 1));
  c->leave(second);
  CHECK(comes_to(run, "a", 0));
  CHECK(comes_to(run, "b", 2));
}

TEST(a_run_that_was_forgotten_begins_anew) {
  const Run run;
  for (int round = 0; round < 3; ++round) {
    auto a = run.peer(2, in_run("again")), b = run.peer(2, in_run("again"));
    CHECK(!admitted(*a));
    CHECK(!admitted(*b));
    auto x = start_sum(*a, 10, 1, true), y = start_sum(*b, 10, 1, true);
    CHECK(!finish(*x).outcome.error);
    CHECK(!finish(*y).outcome.error);
    a->leave(second);
    b->close();  // without a word
    CHECK(comes_to(run, "again", 0));
  }
}

// One that heard too few of its last view, of a master that serves as many runs as it may.
TEST(the_run_without_a_name_begins_anew_where_no_other_run_may) {
  Timing timing;
  timing.grace = 200 * millisecond;
  Run run(timing);
  auto peers = run.peers(3);
  MasterOptions options;
  options.listen = net::text_of(run.master->address());
  options.timing = timing;
  options.runs_max = 1;
  run.master.reset();  // before it can learn that two of them go
  for (std::size_t i = 0; i < 2; ++i) peers[i]->close();
  auto created = MasterRuntime::create(std::move(options));
  REQUIRE(created);
  run.master = std::move(*created);
  CHECK(comes_to(run, "", 1));
  CHECK(comes_to(run, "", 0));
  auto error = Error{ErrorCode::no_quorum, ""};  // while the last run's member is on its way out
  for (const auto until = monotonic_now() + 10 * second;
       error.code == ErrorCode::no_quorum && monotonic_now() < until;) {
    auto next = run.peer(1);
    error = admitted(*next);
  }
  CHECK(!error);
}

TEST(ranks_are_given_in_the_order_asked_for) {
  const Run run;
  auto last = run.peer(3), second_one = run.peer(3, in_run("", 1)), first = run.peer(3, in_run("", 0));
  for (auto* peer : {last.get(), second_one.get(), first.get()}) CHECK(!admitted(*peer));
  const auto members = first->status(false).view.members;
  CHECK_EQ(members.size(), std::size_t(3));
  CHECK_EQ(members[0].peer, first->status(false).peer);
  CHECK_EQ(members[1].peer, second_one->status(false).peer);
  CHECK_EQ(members[2].peer, last->status(false).peer);
}

TEST(an_operation_for_more_peers_than_there_are_fails_on_all) {
  const Run run;
  auto peers = run.peers(2);
  const auto post = [](PeerRuntime& peer, std::uint32_t count) {
    PostRequest request;
    request.posting.descriptor.call = Call::barrier;
    request.posting.peers = count;
    return peer.post(std::move(request));
  };
  auto counts_on_three = post(*peers[0], 3), counts_on_two = post(*peers[1], 2);
  for (const auto& handle : {counts_on_three, counts_on_two}) {
    CHECK(handle->result.wait_for(10 * second));
    CHECK(handle->result.get().outcome.error.code == ErrorCode::peer_lost);
  }
  auto again = post(*peers[0], 2), and_here = post(*peers[1], 0);
  for (const auto& handle : {again, and_here}) {
    CHECK(handle->result.wait_for(10 * second));
    CHECK(!handle->result.get().outcome.error);
  }
}

TEST(completions_tell_of_each_operation_once) {
  const Run run;
  auto peers = run.peers(2);
  const auto completions = std::make_shared<Completions>();  // the other thread may be in it still
  std::vector<std::shared_ptr<Float32Operation>> operations;
  for (std::uint32_t i = 0; i < 8; ++i) {
    operations.push_back(start_sum(*peers[0], 10, 1, true, i + 1));
    operations[i]->handle->result.then([completions, i] { completions->push(i); });
  }
  CHECK(!completions->take(0));
  std::vector<std::shared_ptr<Float32Operation>> others;
  for (std::uint32_t i = 8; i-- > 0;) others.push_back(start_sum(*peers[1], 10, 1, true, i + 1));
  std::vector<std::uint64_t> ended;
  const auto until = monotonic_now() + 10 * second;
  while (ended.size() < 8 && monotonic_now() < until)
    if (const auto number = completions->take(second)) ended.push_back(*number);
  std::sort(ended.begin(), ended.end());
  CHECK(ended == std::vector<std::uint64_t>({0, 1, 2, 3, 4, 5, 6, 7}));
  operations[0]->handle->result.then([completions] { completions->push(99); });  // it has ended: at once
  CHECK(completions->take(0) == std::optional<std::uint64_t>(99));
  for (const auto& other : others) CHECK(!finish(*other).outcome.error);
}
