// Plans of reading without a file, against bytes taken one by one.
#include <algorithm>
#include <limits>
#include <set>

#include "base/rng.hpp"
#include "check.hpp"
#include "disk/read_rows.hpp"

namespace pccl::disk {
namespace {

constexpr std::uint64_t block = 4096;

struct Scene {
  std::vector<std::byte> file, memory, expected;
  std::vector<std::uint32_t> crcs;
  ReadPlan plan;
  std::set<std::uint64_t> touched;
};

ReadRun any_run(Rng& rng, std::uint64_t file_bytes, std::uint64_t bytes_max) {
  ReadRun run;
  run.bytes = 1 + rng.below(std::min(file_bytes, bytes_max));
  run.count = 1 + rng.below(40);
  run.file_stride = run.count > 1 ? rng.below((file_bytes - run.bytes) / (run.count - 1) + 1) : rng.next();
  const auto reach = (run.count > 1 ? (run.count - 1) * run.file_stride : 0) + run.bytes;
  run.file_offset = rng.below(file_bytes - reach + 1);
  run.memory_stride = run.bytes + rng.below(50);
  return run;
}

Scene any_scene(Rng& rng) {
  Scene scene;
  scene.file.resize(1 + rng.below(60'000));
  for (auto& byte : scene.file) byte = std::byte(rng.next());
  std::uint64_t room = 0;
  for (auto runs = rng.below(5); runs > 0; --runs) {
    auto run = any_run(rng, scene.file.size(), rng.chance(0.5) ? 20 : 9000);
    run.to = reinterpret_cast<std::byte*>(room + 1);  // until there is memory
    room += run.count * run.memory_stride;
    scene.plan.runs.push_back(run);
  }
  scene.memory.resize(room, std::byte{0xee});
  scene.expected = scene.memory;
  for (auto& run : scene.plan.runs) {
    const auto at = reinterpret_cast<std::uintptr_t>(run.to) - 1;
    run.to = scene.memory.data() + at;
    for (std::uint64_t i = 0; i < run.count * run.bytes; ++i) {
      const auto row = i / run.bytes, column = i % run.bytes;
      const auto from = run.file_offset + row * run.file_stride + column;
      scene.expected[at + row * run.memory_stride + column] = scene.file[from];
      scene.touched.insert(from / block);
    }
  }
  scene.crcs.resize((scene.file.size() + block - 1) / block);
  scene.plan.path = "shard";
  scene.plan.file_bytes = scene.file.size();
  scene.plan.block_bytes = block;
  scene.plan.crcs = scene.crcs;
  return scene;
}

TEST(extents_are_the_touched_blocks_and_their_rows_are_all_copied) {
  for (std::uint64_t seed = 1; seed <= 500; ++seed) {
    Rng rng(seed);
    auto scene = any_scene(rng);
    REQUIRE(!wrong_with(scene.plan));
    const ReadRows rows(scene.plan);
    std::set<std::uint64_t> blocks;
    std::uint64_t copied = 0, wanted = 0;
    for (const auto& extent : rows.extents(3 * block)) {
      CHECK(extent.begin % block == 0 && extent.end > extent.begin && extent.end - extent.begin <= 3 * block);
      for (auto at = extent.begin; at < extent.end; at += block) CHECK(blocks.insert(at / block).second);
      for (const auto* run : rows.near(extent))
        copied += copy_rows(*run, extent, scene.file.data() + extent.begin);
    }
    for (const auto& run : scene.plan.runs) wanted += run.count * run.bytes;
    CHECK(blocks == scene.touched);
    CHECK(scene.memory == scene.expected);
    CHECK_EQ(copied, wanted);
  }
}

// Long rows go past the caches, in whole lines and what is left at both ends.
TEST(long_rows_come_whole_to_any_address) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    Rng rng(seed);
    std::vector<std::byte> file(700'000);
    for (auto& byte : file) byte = std::byte(rng.next());
    ReadRun run{.file_offset = rng.below(3000), .bytes = 65'500 + rng.below(100), .count = 1 + rng.below(4)};
    run.file_stride = run.bytes + rng.below(5000);
    run.memory_stride = run.bytes + rng.below(200);
    const auto before = rng.below(200), room = before + run.count * run.memory_stride;
    std::vector<std::byte> memory(room + 100, std::byte{0xee}), expected = memory;
    for (std::uint64_t row = 0; row < run.count; ++row)
      std::copy_n(file.begin() + std::ptrdiff_t(run.file_offset + row * run.file_stride), run.bytes,
                  expected.begin() + std::ptrdiff_t(before + row * run.memory_stride));
    run.to = memory.data() + before;
    const auto cut = rng.below(file.size());  // within a row, perhaps
    const auto copied =
        copy_rows(run, {0, cut}, file.data()) + copy_rows(run, {cut, file.size()}, file.data() + cut);
    CHECK_EQ(copied, run.count * run.bytes);
    CHECK(memory == expected);
  }
}

TEST(hostile_numbers_are_errors) {
  constexpr auto most = std::numeric_limits<std::uint64_t>::max();
  const std::uint64_t odd[] = {0,          1,          7,          4095,     4096, 10'000,
                               1ull << 32, 1ull << 62, 1ull << 63, most - 1, most};
  std::byte memory[64];
  std::vector<std::uint32_t> crcs(3);
  Rng rng(3);
  std::uint64_t sound = 0;
  for (int i = 0; i < 200'000; ++i) {
    const auto any = [&] { return odd[rng.below(std::size(odd))]; };
    ReadPlan plan{"shard", 10'000, block, crcs, {{any(), memory, any(), any(), any(), any()}}};
    if (rng.chance(0.1)) plan.block_bytes = any();
    if (rng.chance(0.1)) plan.file_bytes = any();
    if (const auto error = wrong_with(plan)) {
      CHECK(error.code == ErrorCode::usage);
      continue;
    }
    ++sound;
    const auto& run = plan.runs[0];
    if (run.count == 0 || run.bytes == 0) continue;
    std::uint64_t end = 0;
    CHECK(!__builtin_mul_overflow(run.count - 1, run.file_stride, &end));
    CHECK(end <= 10'000 && run.file_offset <= 10'000 - end && run.bytes <= 10'000 - end - run.file_offset);
    for (const auto& extent : ReadRows(plan).extents(block)) CHECK(extent.end <= 10'000);
  }
  CHECK(sound > 1000);
}

}  // namespace
}  // namespace pccl::disk
