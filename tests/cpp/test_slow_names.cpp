// A name that takes long to look up holds nobody up but the link that needs it.
#include <condition_variable>

#include "runtime_fixture.hpp"

using namespace pccl;
using namespace pccl::testing;

namespace {

// A name server that answers nobody until it is told to.
class SlowNames {
 public:
  Result<std::vector<net::SocketAddress>> look_up(const Address& address) {
    std::unique_lock lock(mutex_);
    ++asked_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_; });
    return net::resolve({"127.0.0.1", address.port}, net::Purpose::connect);
  }
  void answer() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  bool asked() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return asked_ > 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int asked_ = 0;
  bool open_ = false;
};

}  // namespace

TEST(names_of_peers_are_looked_up_beside_the_sockets) {
  Run run;
  const auto names = std::make_shared<SlowNames>();
  auto first = run.peer(1, [](PeerOptions& o) { o.advertise = {"first.test"}; });
  CHECK_EQ(int(admitted(*first).code), 0);
  auto joiner = run.peer(1, [&](PeerOptions& o) {
    o.look_up = [names](const Address& address) { return names->look_up(address); };
  });
  REQUIRE(names->asked());
  const auto begin = monotonic_now();
  (void)joiner->status(true);  // waits for its I/O thread, a second at most
  CHECK(monotonic_now() - begin < 900 * millisecond);
  CHECK(!joiner->admitted()->done());
  names->answer();
  const auto passed = first->enter_boundary(2, 10 * second);
  CHECK_EQ(int(admitted(*joiner).code), 0);
  CHECK(passed->wait_for(10 * second));
  const auto a = start_sum(*first, 1000, 1, true), b = start_sum(*joiner, 1000, 2, true);
  for (const auto& operation : {a, b}) {
    CHECK_EQ(int(finish(*operation).outcome.error.code), 0);
    CHECK(holds(operation->in, 3, 2));
  }
}

TEST(a_peer_ends_while_a_name_is_looked_up) {
  Run run;
  const auto names = std::make_shared<SlowNames>();
  auto first = run.peer(1, [](PeerOptions& o) { o.advertise = {"first.test"}; });
  CHECK_EQ(int(admitted(*first).code), 0);
  auto joiner = run.peer(1, [&](PeerOptions& o) {
    o.look_up = [names](const Address& address) { return names->look_up(address); };
  });
  REQUIRE(names->asked());
  const auto begin = monotonic_now();
  joiner.reset();
  CHECK(monotonic_now() - begin < 5 * second);
  names->answer();
}

TEST(a_name_that_stands_for_nothing_is_told) {
  Run run([] {
    Timing timing;
    timing.prove = 500 * millisecond;
    return timing;
  }());
  auto first = run.peer(1, [](PeerOptions& o) { o.advertise = {"no-such-host.invalid"}; });
  CHECK_EQ(int(admitted(*first).code), 0);
  auto joiner = run.peer(1);
  const auto error = admitted(*joiner);
  CHECK_EQ(error.code, ErrorCode::refused);
  CHECK(error.text.find("no-such-host.invalid") != std::string::npos);
}
