// A pool in place: the file is in its memory, from the begin, whatever was copied first.

#include "check.hpp"
#include "staging/stays_there.hpp"
#include "staging_fixture.hpp"

using namespace pccl;
using namespace pccl::check;

namespace {

std::shared_ptr<StagingPool> make_place(std::size_t slabs) {
  auto pool = StagingPool::make(
      {.bytes = slabs * slab_bytes, .huge_pages = false, .in_place = true, .slab_bytes = slab_bytes});
  REQUIRE(bool(pool));
  return *pool;
}

std::shared_ptr<Capture> capture_to(const std::shared_ptr<StagingPool>& pool, const State& state) {
  auto made = Capture::make(pool, std::make_shared<staging::StaysThere>(), state.spec());
  REQUIRE(bool(made));
  return *made;
}

}  // namespace

TEST(a_file_lies_in_order_whichever_slab_was_first) {
  const auto pool = make_place(6);
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {  // the same memory again and again
    State state({100, 3 * slab_bytes, 700, slab_bytes + 5}, seed);
    const auto capture = capture_to(pool, state);
    REQUIRE(!capture->start());
    const std::vector<std::uint32_t> last{3};
    CHECK(capture->fence(Capture::Regions(last), in_seconds(5)));
    state.overwrite(3);
    CHECK(capture->wait_staged(in_seconds(5)));
    CHECK(std::memcmp(pool->address(), state.expected.data(), state.expected.size()) == 0);
    const auto& crc32 = kernels::best_crc32();
    CHECK_EQ(capture->block_crcs()[0], crc32.of(state.expected.data(), block_bytes));
    CHECK_EQ(pool->free(), 6);
  }
}

TEST(a_file_larger_than_its_place_is_refused) {
  const State state({3 * slab_bytes}, 1);
  auto made = Capture::make(make_place(3), std::make_shared<staging::StaysThere>(), state.spec());
  CHECK_EQ(made.error().code, ErrorCode::usage);
}

TEST(a_younger_capture_waits_until_the_place_is_free) {
  const auto pool = make_place(1);
  const staging::Lock lock(staging::Monitor::here().mutex);
  const auto older = pool->enter(1), younger = pool->enter(1);
  CHECK(pool->take(older, 1) == nullptr);  // there is no such slab
  std::byte* const slab = pool->take(older, 0);
  CHECK(slab != nullptr);
  CHECK(pool->take(younger, 0) == nullptr);
  pool->give(slab);
  CHECK_EQ(pool->take(younger, 0), slab);
  pool->give(slab);
}
