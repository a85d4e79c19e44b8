#include "disk/shard_reader.hpp"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include "base/clock.hpp"
#include "disk/bounce_buffers.hpp"
#include "disk/file.hpp"
#include "disk/read_rows.hpp"
#include "disk/signals_blocked.hpp"
#include "kernels/crc32.hpp"

namespace pccl::disk {

namespace {

constexpr unsigned threads_max = unsigned(BounceBuffers::kept_max);

// Read at a time: as much as a buffer holds, for a device that is asked for little idles while its readers
// sum and copy (of 4 MiB at a time it gave a tenth less). Of a small file less, so that threads end together.
std::uint64_t extent_bytes(std::uint64_t file_bytes) {
  constexpr std::uint64_t turns = 4;  // of each thread
  return std::clamp<std::uint64_t>(file_bytes / (threads_max * turns), 1u << 20, bounce_bytes);
}

std::string in_hex(std::uint32_t crc) {
  char text[12];
  std::snprintf(text, sizeof text, "%08x", unsigned(crc));
  return text;
}

Error damaged(const ReadPlan& plan, std::uint64_t at, const std::string& what) {
  const auto block = at / plan.block_bytes, begin = block * plan.block_bytes;
  const auto end = std::min(begin + plan.block_bytes, plan.file_bytes);
  return {ErrorCode::damaged, plan.path + " is damaged in block " + std::to_string(block) + " (bytes " +
                                  std::to_string(begin) + " to " + std::to_string(end) + "): " + what +
                                  "; load an older checkpoint or another copy of it"};
}

Error wrong_length(const ReadPlan& plan, std::uint64_t bytes) {
  const auto what =
      "the file has " + std::to_string(bytes) + " bytes instead of " + std::to_string(plan.file_bytes);
  const auto shorter = bytes < plan.file_bytes;
  return damaged(plan, shorter ? bytes : std::max<std::uint64_t>(plan.file_bytes, 1) - 1, what);
}

// One call of read_verified: its threads take extents in turn, each into its own buffer.
class Reading {
 public:
  Reading(Disk& disk, const ReadPlan& plan, File& file, const ReadRows& rows)
      : disk_(disk),
        plan_(plan),
        file_(file),
        rows_(rows),
        extents_(rows.extents(extent_bytes(plan.file_bytes))) {}

  Result<ReadStats> run(unsigned threads);

 private:
  void take_part(const BounceBuffers::Buffer& buffer);
  Error read(const Extent& extent, std::byte* buffer);
  Error check_and_copy(const Extent& extent, const std::byte* from);
  void fail(const Error& error);
  std::vector<std::thread> helpers(unsigned count);

  Disk& disk_;
  const ReadPlan& plan_;
  File& file_;
  const ReadRows& rows_;
  const std::vector<Extent> extents_;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> failed_{false};
  std::atomic<unsigned> helping_{0};
  std::atomic<std::uint64_t> read_{0}, copied_{0}, blocks_{0};
  std::mutex mutex_;
  Error first_error_;
};

Result<ReadStats> Reading::run(unsigned threads) {
  const auto buffer = disk_.buffers().take();
  if (!buffer)
    return Error{ErrorCode::checkpoint,
                 "no memory to read " + plan_.path + " into: 16 MiB are needed; free some"};
  if (!extents_.empty()) file_.try_direct(extents_.front().begin);
  const auto useful = std::min<std::size_t>(std::clamp(threads, 1u, threads_max), extents_.size());
  auto others = helpers(useful > 0 ? unsigned(useful) - 1 : 0);
  take_part(buffer);
  for (auto& thread : others) thread.join();
  if (first_error_) return first_error_;
  return ReadStats{read_, copied_, blocks_, helping_ + 1, file_.direct(), 0};
}

// As many as there are threads and buffers to be had: the caller alone gets it done, too.
std::vector<std::thread> Reading::helpers(unsigned count) {
  std::vector<std::thread> others;
  const SignalsBlocked blocked;
  try {
    others.reserve(count);
    while (others.size() < count) {
      others.emplace_back([this] {
        const auto buffer = disk_.buffers().try_take();
        if (!buffer) return;
        ++helping_;
        take_part(buffer);
      });
    }
  } catch (const std::system_error&) {
  }
  return others;
}

void Reading::take_part(const BounceBuffers::Buffer& buffer) try {
  while (!failed_) {
    const auto mine = next_.fetch_add(1);
    if (mine >= extents_.size()) return;
    auto error = read(extents_[mine], buffer.data());
    if (!error) error = check_and_copy(extents_[mine], buffer.data());
    if (error) fail(error);
  }
} catch (const std::bad_alloc&) {
  fail({ErrorCode::checkpoint, "no memory left to read " + plan_.path + "; free some"});
}

Error Reading::read(const Extent& extent, std::byte* buffer) {
  const auto wanted = std::size_t(extent.end - extent.begin);
  const auto have = file_.read(buffer, wanted, extent.begin);
  if (!have) return have.error();
  if (have.value() < wanted) return wrong_length(plan_, extent.begin + have.value());
  read_ += wanted;
  return {};
}

// A block at a time, so that it is still in the cache when it is copied.
Error Reading::check_and_copy(const Extent& extent, const std::byte* from) {
  const auto runs = rows_.near(extent);
  std::uint64_t copied = 0;
  for (auto at = extent.begin; at < extent.end; at += plan_.block_bytes) {
    const Extent block{at, std::min(at + plan_.block_bytes, extent.end)};
    const auto* const bytes = from + (at - extent.begin);
    const auto expected = plan_.crcs[at / plan_.block_bytes];
    const auto crc = kernels::best_crc32().of(bytes, std::size_t(block.end - block.begin));
    if (crc != expected)
      return damaged(plan_, at, "its CRC-32 is " + in_hex(crc) + " instead of " + in_hex(expected));
    for (const auto* run : runs) copied += copy_rows(*run, block, bytes);
    ++blocks_;
  }
  copied_ += copied;
  return {};
}

void Reading::fail(const Error& error) {
  failed_ = true;
  const std::lock_guard lock(mutex_);
  if (!first_error_) first_error_ = error;
}

}  // namespace

Result<ReadStats> read_verified(Disk& disk, const ReadPlan& plan, unsigned threads) {
  const auto begun = monotonic_now();
  if (auto error = wrong_with(plan)) return error;
  auto file = File::open(disk, plan.path, Purpose::read);
  if (!file) return file.error();
  const auto facts = file->facts();
  if (!facts) return facts.error();
  if (facts.value().bytes != plan.file_bytes) return wrong_length(plan, facts.value().bytes);
  const ReadRows rows(plan);
  auto stats = Reading(disk, plan, *file, rows).run(threads);
  if (stats) stats->seconds = double(monotonic_now() - begun) / double(second);
  return stats;
}

}  // namespace pccl::disk
