#include <algorithm>
#include <cstring>
#include <vector>

#include "check.hpp"
#include "runtime/undo_pool.hpp"

using namespace pccl;

namespace {
constexpr std::size_t kib = 1u << 10, mib = 1u << 20;

std::size_t size_of_next(UndoPool& pool, std::size_t bytes) { return pool.take(bytes).get_deleter().bytes; }
}  // namespace

TEST(small_copies_cost_what_they_hold) {
  UndoPool pool;
  std::vector<UndoPool::Buffer> all;
  std::size_t bytes = 0;
  for (int i = 0; i < 1000; ++i) {
    all.push_back(pool.take(100));
    bytes += all.back().get_deleter().bytes;
    std::memset(all.back().get(), i, 100);
  }
  CHECK_EQ(bytes, std::size_t{128 * 1000});
  for (int i = 0; i < 1000; ++i) CHECK_EQ(int(all[std::size_t(i)].get()[99]), i & 0xff);
}

TEST(every_size_has_room_and_large_ones_are_whole_huge_pages) {
  UndoPool pool;
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, 64 * kib + 1, mib, mib + 1, 2 * mib - 1,
                                  2 * mib, 2 * mib + 1, 10 * mib}) {
    const auto buffer = pool.take(bytes);
    const auto held = buffer.get_deleter().bytes;
    CHECK(held >= bytes);
    CHECK(bytes <= mib ? held <= std::max<std::size_t>(2 * bytes, 64) : held % (2 * mib) == 0);
    std::memset(buffer.get(), 1, held);
  }
}

TEST(buffers_in_flight_together_are_all_kept) {
  UndoPool pool;
  for (const std::size_t bytes : {300 * kib, 10 * mib}) {
    std::vector<UndoPool::Buffer> all;
    std::vector<const std::uint8_t*> before, after;
    for (int i = 0; i < 4; ++i) all.push_back(pool.take(bytes));
    for (auto& buffer : all) {
      before.push_back(buffer.get());
      pool.give(std::move(buffer), second);
    }
    all.clear();
    for (int i = 0; i < 4; ++i) all.push_back(pool.take(bytes));
    for (const auto& buffer : all) after.push_back(buffer.get());
    std::sort(before.begin(), before.end());
    std::sort(after.begin(), after.end());
    CHECK_EQ(before, after);
  }
}

TEST(a_tiny_copy_does_not_take_a_large_buffer) {
  UndoPool pool;
  pool.give(pool.take(10 * mib), 0);
  CHECK_EQ(size_of_next(pool, 100), std::size_t{128});
  CHECK_EQ(size_of_next(pool, 4 * mib), 4 * mib);
  CHECK_EQ(size_of_next(pool, 9 * mib), 10 * mib);
}

TEST(what_is_kept_is_bounded_and_not_for_ever) {
  UndoPool pool;
  const auto large = 4 * UndoPool::kept_bytes_max;  // mapped, and never touched
  pool.give(pool.take(large), 0);
  CHECK_EQ(pool.kept_bytes(), large);
  std::vector<UndoPool::Buffer> all;
  for (int i = 0; i < 20; ++i) all.push_back(pool.take(UndoPool::kept_bytes_max / 8));
  for (auto& buffer : all) pool.give(std::move(buffer), second);
  CHECK(pool.kept_bytes() <= UndoPool::kept_bytes_max + large);
  CHECK(pool.kept_bytes() >= UndoPool::kept_bytes_max);
  pool.tick(second + UndoPool::kept_for);
  CHECK(pool.kept_bytes() >= UndoPool::kept_bytes_max);
  pool.tick(second + UndoPool::kept_for + 1);
  CHECK_EQ(pool.kept_bytes(), std::size_t{0});
}
