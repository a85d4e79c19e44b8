// The pool: its memory, its turns, and its end.

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "check.hpp"
#include "staging_fixture.hpp"

using namespace pccl;
using namespace pccl::check;
using staging::Lock;
using staging::Monitor;

TEST(slabs_are_apart_aligned_and_given_back) {
  const auto pool = make_pool(3);
  CHECK_EQ(pool->slabs(), 3);
  CHECK_EQ(pool->bytes(), 3 * slab_bytes);
  std::vector<std::byte*> taken;
  {
    const Lock lock(Monitor::here().mutex);
    const auto ticket = pool->enter(3);
    while (auto* slab = pool->take(ticket)) taken.push_back(slab);
  }
  REQUIRE(taken.size() == 3);
  CHECK_EQ(pool->free(), 0);
  CHECK_EQ(pool->close().code, ErrorCode::usage);
  for (auto* slab : taken) {
    CHECK_EQ(reinterpret_cast<std::uintptr_t>(slab) % 4096, 0);
    std::memset(slab, 1, slab_bytes);
    const Lock lock(Monitor::here().mutex);
    pool->give(slab);
  }
  CHECK_EQ(pool->free(), 3);
  CHECK(pool->address() != nullptr);
  CHECK(!pool->close());
  CHECK(pool->address() == nullptr);
  CHECK(!pool->close());
}

TEST(the_oldest_that_wants_slabs_comes_first) {
  const auto pool = make_pool(4);
  const Lock lock(Monitor::here().mutex);
  const auto older = pool->enter(2), younger = pool->enter(9);
  CHECK(pool->take(younger) == nullptr);
  CHECK(pool->take(older) != nullptr);
  CHECK(pool->take(younger) == nullptr);
  CHECK(pool->take(older) != nullptr);
  CHECK(pool->take(older) == nullptr);
  CHECK(pool->take(younger) != nullptr);
  const auto third = pool->enter(1);
  CHECK(pool->take(third) == nullptr);
  pool->leave(younger);
  CHECK(pool->take(third) != nullptr);
}

TEST(memory_without_pages_is_known) {
  const auto pool = make_fresh_pool(2);
  const Lock lock(Monitor::here().mutex);
  const auto ticket = pool->enter(9);
  CHECK(pool->is_fresh_next());
  std::byte* const first = pool->take(ticket);
  CHECK(pool->is_fresh_next());
  pool->give(first);
  CHECK(!pool->is_fresh_next());
  CHECK_EQ(pool->take(ticket), first);
  CHECK(pool->take(ticket) != nullptr);
  pool->give(first);
  CHECK(!pool->is_fresh_next());
}

TEST(senseless_pools_are_refused) {
  CHECK_EQ(StagingPool::make({.bytes = 0}).error().code, ErrorCode::usage);
  CHECK_EQ(StagingPool::make({.bytes = ~std::uint64_t{0}}).error().code, ErrorCode::usage);
  CHECK_EQ(StagingPool::make({.bytes = 1, .slab_bytes = 1000}).error().code, ErrorCode::usage);
  CHECK_EQ(StagingPool::make({.bytes = 1, .fd = 9999}).error().code, ErrorCode::usage);
}

TEST(memory_of_a_caller) {
  const int fd = ::memfd_create("test", MFD_CLOEXEC);
  REQUIRE(fd >= 0);
  const auto make = [&] {
    return StagingPool::make({.bytes = slab_bytes, .fd = fd, .slab_bytes = slab_bytes});
  };
  CHECK_EQ(make().error().code, ErrorCode::usage);  // it is too short
  REQUIRE(::ftruncate(fd, slab_bytes) == 0);
  REQUIRE(::pwrite(fd, "kept", 4, 100) == 4);
  auto pool = make();
  REQUIRE(bool(pool));
  CHECK(std::memcmp((*pool)->address() + 100, "kept", 4) == 0);
  std::memcpy((*pool)->address() + 200, "seen", 4);
  char text[4];
  REQUIRE(::pread(fd, text, 4, 200) == 4);
  CHECK(std::memcmp(text, "seen", 4) == 0);
  ::close(fd);
}

TEST(a_forked_child_has_no_slabs_and_leaves_the_parent_s_alone) {
  const auto pool = make_pool(2);
  const State state({10'000}, 1);
  const pid_t child = ::fork();
  if (child == 0) {
    const bool refused = !Capture::make(pool, std::make_shared<MemorySink>(), state.spec());
    ::_exit(refused && pool->address() == nullptr && pool->free() == 0 && !pool->close() ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK_EQ(status, 0);
  std::memset(pool->address(), 1, pool->bytes());
}

namespace {

std::size_t pages_there(const staging::StagingPool& pool) {
  std::vector<unsigned char> pages(pool.bytes() / 4096);
  if (::mincore(pool.address(), pool.bytes(), pages.data()) != 0) return 0;
  return static_cast<std::size_t>(
      std::count_if(pages.begin(), pages.end(), [](unsigned char page) { return (page & 1) != 0; }));
}

}  // namespace

TEST(pages_come_behind_and_change_nothing_that_is_there) {
  const auto pool = make_fresh_pool(40);
  std::byte* taken = nullptr;
  {
    const Lock lock(Monitor::here().mutex);
    taken = pool->take(pool->enter(1));
  }
  REQUIRE(taken != nullptr);
  std::memset(taken, 7, slab_bytes);
  std::thread([&] { pool->warm(); }).join();  // it keeps its low priority
  CHECK_EQ(pages_there(*pool), pool->bytes() / 4096);
  CHECK_EQ(pool->free(), 39);
  CHECK(std::all_of(taken, taken + slab_bytes, [](std::byte one) { return one == std::byte{7}; }));
  const Lock lock(Monitor::here().mutex);
  CHECK(!pool->is_fresh_next());
  pool->give(taken);
}

TEST(a_pool_that_ends_is_not_warmed_further) {
  const auto pool = make_fresh_pool(4);
  pool->stop_warming();
  std::thread([&] { pool->warm(); }).join();
  CHECK(pages_there(*pool) < pool->bytes() / 4096);
  {
    const Lock lock(Monitor::here().mutex);
    CHECK(pool->is_fresh_next());
  }
  CHECK(!pool->close());
  std::thread([&] { pool->warm(); }).join();
}

TEST(pages_wait_while_a_save_wants_slabs) {
  const auto pool = make_fresh_pool(40);
  staging::StagingPool::Ticket ticket = 0;
  {
    const Lock lock(Monitor::here().mutex);
    ticket = pool->enter(3);
  }
  std::thread warming([&] { pool->warm(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK_EQ(pages_there(*pool), 0);
  {
    const Lock lock(Monitor::here().mutex);
    pool->leave(ticket);
  }
  warming.join();
  CHECK_EQ(pages_there(*pool), pool->bytes() / 4096);
}

TEST(a_pool_that_ends_does_not_wait_for_a_save_to_give_pages) {
  const auto pool = make_fresh_pool(4);
  {
    const Lock lock(Monitor::here().mutex);
    pool->enter(3);
  }
  std::thread warming([&] { pool->warm(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  pool->stop_warming();
  warming.join();
  CHECK_EQ(pages_there(*pool), 0);
}

TEST(slabs_are_taken_while_others_get_their_pages) {
  const auto pool = make_fresh_pool(200);
  const auto sink = std::make_shared<MemorySink>(MemorySink::Mode::at_once);
  const State state(std::vector<std::size_t>(60, 60'000), 5);
  const auto capture = make_capture(pool, sink, state.spec(2));
  std::thread warming([&] { pool->warm(); });
  CHECK(!capture->start());
  CHECK(capture->wait_staged(in_seconds(20), staging::Capture::Waits::aside));
  CHECK_EQ(capture->callers_bytes(), 0);
  CHECK(capture->wait_released(in_seconds(20)));
  warming.join();
  check_saved(*capture, *sink, state);
  CHECK_EQ(pool->free(), 200);
}
