// A master that serves until a moment, and no longer; and what a peer without a master says.
#include "runtime/master_link.hpp"
#include "runtime_fixture.hpp"

using namespace pccl;
using pccl::testing::admitted;
using pccl::testing::Run;

namespace {

bool eventually(const std::function<bool()>& holds) {
  const auto until = monotonic_now() + 10 * second;
  while (!holds() && monotonic_now() < until) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return holds();
}

std::string fenced(const Run& run) { return run.master->status().fenced; }

class Listener final : public MasterLink::Owner {
 public:
  void master_up() override { up = true; }
  void master_message(const ToPeer&) override {}
  void master_down(const Error&) override { up = false; }
  void master_unreachable(const Error&, bool) override {}
  void master_news(const std::string& text) override { news.push_back(text); }
  bool up = false;
  std::vector<std::string> news;
};

}  // namespace

TEST(a_lease_that_is_moved_on_ends_nothing) {
  Run run;
  REQUIRE(run.master);
  run.master->serve_until(monotonic_now() + 20 * millisecond);
  run.master->serve_until(monotonic_now() + 60 * second);
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  CHECK_EQ(fenced(run), "");
  CHECK_EQ(run.peers(1).size(), 1u);
}

TEST(a_lease_that_is_over_ends_the_service) {
  Run run;
  REQUIRE(run.master);
  auto peer = run.peer(1);
  REQUIRE(peer && !admitted(*peer));
  run.master->serve_until(monotonic_now() + 20 * millisecond);
  CHECK(eventually([&] { return fenced(run) == "its lease ran out before it was renewed"; }));
  auto late = run.peer(1);
  CHECK(late == nullptr || bool(admitted(*late, 200 * millisecond)));
}

TEST(a_lease_that_was_over_lets_nothing_out) {
  Run run;
  REQUIRE(run.master);
  run.master->serve_until(0);
  auto peer = run.peer(1);
  CHECK(peer == nullptr || bool(admitted(*peer, 200 * millisecond)));
  CHECK(eventually([&] { return !fenced(run).empty(); }));
}

TEST(a_master_may_be_fenced_from_another_thread) {
  Run run;
  REQUIRE(run.master);
  run.master->fence("another one is elected");
  run.master->fence("and again");
  CHECK(eventually([&] { return fenced(run) == "another one is elected"; }));
  run.master->stop();
  run.master->fence("too late");
  CHECK_EQ(fenced(run), "another one is elected");
}

TEST(a_peer_says_that_there_is_no_master) {
  Run run;
  REQUIRE(run.master);
  auto hub = Hub::create();
  REQUIRE(hub);
  Listener owner;
  auto where = net::resolve(run.master->address(), net::Purpose::connect);
  REQUIRE(where);
  MasterLink link(**hub, owner, {}, "the master", *where);
  const auto turn = [&](bool up) {
    for (int i = 0; i < 2000 && owner.up != up; ++i) {
      link.tick(monotonic_now());
      (*hub)->turn(monotonic_now() + 5 * millisecond, monotonic_now);
    }
    CHECK_EQ(owner.up, up);
  };
  turn(true);
  const auto address = net::text_of(run.master->address());
  run.master->stop();
  turn(false);
  link.tick(monotonic_now());
  CHECK(owner.news.empty());
  link.tick(monotonic_now() + 4 * second);
  REQUIRE(owner.news.size() == 1);
  const auto& text = owner.news.front();
  CHECK(text.starts_with("no master for 4 s, since "));
  CHECK(text.find("operations wait for their commit; dialling " + address) != std::string::npos);
  link.tick(monotonic_now() + 5 * second);
  CHECK_EQ(owner.news.size(), 1u);  // and then every ten seconds
  link.tick(monotonic_now() + 15 * second);
  CHECK_EQ(owner.news.size(), 2u);
  link.close_politely();
  (*hub)->turn(monotonic_now(), monotonic_now);
}
