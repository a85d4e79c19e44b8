// A master whose store names members: it asks their ports whether anybody still listens.
#include "runtime_fixture.hpp"

using namespace pccl;
using pccl::testing::admitted;
using pccl::testing::Run;

namespace {

class OneRecord final : public MasterStore {
 public:
  explicit OneRecord(Bytes record) : record_(std::move(record)) {}
  Result<Records> load() override { return Records{{record_}, {}}; }
  Outcome keep(const std::string&, ByteView) override { return {}; }
  void forget(const std::string&) override {}

 private:
  Bytes record_;
};

// A run of one member, which listened there.
Bytes record_of(const Address& address) {
  View view;
  view.id = {1, 3};
  Member member;
  member.peer = (PeerId{1} << 32) + 1;
  member.island = "an island";
  member.reachable_at = {address};
  view.members.push_back(member);
  return encode_run_record({"", Role::trainer, 77, 1, view});
}

// How long a newcomer waits; never: longer than `most`.
Duration patience_with(const Address& address, Duration grace, Duration most) {
  Run run;
  MasterOptions options;
  options.timing.grace = grace;
  options.store = std::make_unique<OneRecord>(record_of(address));
  auto created = MasterRuntime::create(std::move(options));
  if (!created) return never;
  run.master = std::move(*created);
  const auto began = monotonic_now();
  auto peer = run.peer(1);
  return peer && !admitted(*peer, most) ? monotonic_now() - began : never;
}

}  // namespace

TEST(nobody_waits_for_members_that_are_all_dead) {
  auto gone = Run();
  REQUIRE(gone.master);
  const auto address = gone.master->address();
  gone.master.reset();
  const auto waited = patience_with(address, 200 * millisecond, 5 * second);
  CHECK(waited >= 190 * millisecond);  // who lives may be on its way
  CHECK(waited != never);
}

TEST(a_member_that_listens_is_waited_for) {
  Run alive;
  REQUIRE(alive.master);
  CHECK_EQ(patience_with(alive.master->address(), 50 * millisecond, 400 * millisecond), never);
}
