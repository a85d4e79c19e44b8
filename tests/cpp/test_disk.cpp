// Files of checkpoints on a real file system: writers and readers side by side, and on disks that fail. The
// single faults have Python tests; here many meet, under the sanitizers' eyes.
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "base/rng.hpp"
#include "check.hpp"
#include "disk/bounce_buffers.hpp"
#include "disk/injected_disk.hpp"
#include "disk/shard_reader.hpp"
#include "disk/shard_writer.hpp"
#include "kernels/crc32.hpp"

namespace pccl::disk {
namespace {

constexpr std::size_t part = 64u << 10;

// Beside the program: where the temporary folder is in memory, nothing is written past the page cache.
class Folder {
 public:
  Folder()
      : path_(std::filesystem::read_symlink("/proc/self/exe").parent_path() /
              ("disk-test-" + std::to_string(::getpid()))) {
    std::filesystem::create_directory(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ / name; }
  std::size_t files() const {
    return std::size_t(std::distance(std::filesystem::directory_iterator(path_), {}));
  }

 private:
  const std::filesystem::path path_;
};

struct Memory {
  explicit Memory(std::size_t size, std::uint64_t seed)
      : bytes(size),
        data(static_cast<std::byte*>(std::aligned_alloc(page_bytes, round_up(size) + page_bytes))) {
    Rng rng(seed);
    for (std::size_t i = 0; i < round_up(size); ++i) data[i] = std::byte(rng.next());
  }
  ~Memory() { std::free(data); }
  Memory(const Memory&) = delete;

  std::vector<std::uint32_t> crcs() const {
    std::vector<std::uint32_t> found;
    for (std::size_t at = 0; at < bytes; at += part)
      found.push_back(kernels::best_crc32().of(data + at, std::min(part, bytes - at)));
    return found;
  }

  const std::size_t bytes;
  std::byte* const data;
};

InjectedDisk disk_of(std::string_view script) {
  auto faults = parse_faults(script);
  REQUIRE(faults);
  return InjectedDisk(std::move(*faults));
}

struct Written {
  Error error;
  std::size_t calls = 0;  // of done
  std::size_t parts = 0;
};

Written write(Disk& disk, const WriteTarget& target, const Memory& memory) {
  Written written;
  auto writer = ShardWriter::open(disk, target, 3);
  if (!writer) {
    written.error = writer.error();
    return written;
  }
  std::atomic<std::size_t> calls{0};
  for (std::size_t at = 0; at < memory.bytes; at += part, ++written.parts)
    (*writer)->write(at, memory.data + at, std::min(part, memory.bytes - at), [&](const Error&) { ++calls; });
  written.error = (*writer)->finish();
  written.calls = calls;
  return written;
}

Result<ReadStats> read_back(Disk& disk, const std::string& path, const Memory& memory,
                            std::vector<std::byte>& to) {
  const auto crcs = memory.crcs();
  to.assign(memory.bytes, std::byte{0});
  return read_verified(disk, {path, memory.bytes, part, crcs, {{0, to.data(), memory.bytes}}}, 4);
}

bool same(const std::vector<std::byte>& bytes, const Memory& memory) {
  return std::equal(bytes.begin(), bytes.end(), memory.data, memory.data + memory.bytes);
}

TEST(files_written_side_by_side_share_threads_and_are_whole) {
  const Folder folder;
  const auto disk = std::make_unique<InjectedDisk>(std::vector<Fault>{});
  std::vector<std::thread> savers;
  for (std::uint64_t saver = 0; saver < 4; ++saver) {
    savers.emplace_back([&, saver] {
      const auto path = folder / std::to_string(saver), retired = path + ".retired";
      for (std::uint64_t generation = 0; generation < 5; ++generation) {
        const Memory memory(1'000'000 + 5000 * saver + 70'000 * generation, 10 * saver + generation);
        const auto written = write(*disk, {path + ".part", retired, memory.bytes, true}, memory);
        CHECK_EQ(written.error.text, "");
        CHECK_EQ(written.calls, written.parts);
        std::vector<std::byte> bytes;
        const auto stats = read_back(*disk, path + ".part", memory, bytes);
        CHECK(stats && same(bytes, memory));
        std::filesystem::rename(path + ".part", retired);
      }
    });
  }
  for (auto& saver : savers) saver.join();
  CHECK_EQ(folder.files(), 4u);
}

TEST(whatever_fails_a_file_is_whole_or_gone_and_every_part_is_answered) {
  const Folder folder;
  const char* const whats[] = {"ENOSPC", "EIO", "EINTR", "EINVAL", "cut 5000", "cut 10", "delay 1", "EAGAIN"};
  std::size_t failed = 0;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    Rng rng(seed);
    std::string script;
    for (auto faults = 1 + rng.below(4); faults > 0; --faults)
      script += std::string(name(Call(rng.below(std::uint64_t(Call::unlink))))) + " " +
                std::to_string(1 + rng.below(12)) + (rng.chance(0.3) ? "+ " : " ") +
                whats[rng.below(std::size(whats))] + ";";
    auto disk = disk_of(script);
    const Memory memory(10 * part + rng.below(5000), seed);
    const auto path = folder / "shard.part";
    const auto written = write(disk, {path, "", memory.bytes, true}, memory);
    CHECK_EQ(written.calls, written.parts);
    CHECK_EQ(folder.files(), written.error ? 0u : 1u);
    if (written.error) {
      ++failed;
      continue;
    }
    std::vector<std::byte> bytes;
    const auto stats = read_back(system_disk(), path, memory, bytes);
    CHECK(stats && same(bytes, memory));
    std::filesystem::remove(path);
  }
  CHECK(failed > 15 && failed < 90);
}

TEST(readers_on_a_disk_that_fails_see_right_bytes_or_an_error) {
  const Folder folder;
  const Memory memory(40 * part + 17, 1);
  const auto path = folder / "shard";
  REQUIRE(!write(system_disk(), {path, "", memory.bytes, true}, memory).error);
  const char* const whats[] = {"EIO", "EINTR", "EINVAL", "cut 50000", "cut 4097", "cut 0", "delay 1"};
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    Rng rng(seed);
    auto disk = disk_of("pread " + std::to_string(1 + rng.below(6)) + (rng.chance(0.5) ? "+ " : " ") +
                        whats[rng.below(std::size(whats))]);
    std::vector<std::byte> bytes;
    const auto stats = read_back(disk, path, memory, bytes);
    if (stats)
      CHECK(same(bytes, memory));
    else
      CHECK(stats.error().text.find(path) != std::string::npos);
  }
}

TEST(one_writer_is_given_up_while_another_goes_on) {
  const Folder folder;
  auto disk = disk_of("pwrite 3+ delay 20");
  const Memory memory(20 * part, 3);
  auto given_up = ShardWriter::open(disk, {folder / "a.part", "", memory.bytes, true}, 2);
  REQUIRE(given_up);
  std::atomic<std::size_t> cancelled{0}, calls{0};
  for (std::size_t at = 0; at < memory.bytes; at += part)
    (*given_up)->write(at, memory.data + at, part, [&](const Error& error) {
      ++calls;
      if (error.code == ErrorCode::cancelled) ++cancelled;
    });
  std::thread other(
      [&] { CHECK_EQ(write(disk, {folder / "b.part", "", memory.bytes, true}, memory).error.text, ""); });
  (*given_up)->abandon();
  CHECK_EQ(calls, 20u);
  CHECK(cancelled > 0u);
  other.join();
  CHECK_EQ(folder.files(), 1u);
}

TEST(buffers_are_kept_but_not_hoarded) {
  BounceBuffers buffers;
  std::byte* first = nullptr;
  {
    std::vector<BounceBuffers::Buffer> taken;
    for (std::size_t i = 0; i < BounceBuffers::kept_max; ++i) {
      taken.push_back(buffers.try_take());
      CHECK(taken.back());
    }
    CHECK(!buffers.try_take());
    taken.push_back(buffers.take());  // nobody waits
    CHECK(taken.back());
    first = taken.front().data();
    CHECK_EQ(reinterpret_cast<std::uintptr_t>(first) % page_bytes, 0u);
  }
  std::vector<BounceBuffers::Buffer> again;
  bool seen = false;
  for (std::size_t i = 0; i < BounceBuffers::kept_max; ++i) {
    again.push_back(buffers.try_take());
    seen = seen || again.back().data() == first;
  }
  CHECK(seen);
}

}  // namespace
}  // namespace pccl::disk
