// What tests of staging share: a sink in memory that holds slabs back, hands them back late or fails, and a
// state of random regions whose content is remembered, so that a torn copy shows.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

#include "base/rng.hpp"
#include "check.hpp"
#include "kernels/crc32.hpp"
#include "staging/capture.hpp"

namespace pccl::check {

using staging::Capture;
using staging::CaptureSpec;
using staging::Region;
using staging::StagingPool;

// Small, so that a test has many of them.
inline constexpr std::size_t slab_bytes = 64 << 10, block_bytes = 8 << 10;

inline Instant in_seconds(double time) { return monotonic_now() + Duration(time * 1e9); }

inline std::shared_ptr<StagingPool> make_pool(std::size_t slabs) {
  auto pool = StagingPool::make({.bytes = slabs * slab_bytes, .huge_pages = false, .slab_bytes = slab_bytes});
  REQUIRE(bool(pool));
  return *pool;
}

// Its pages come when they are touched.
inline std::shared_ptr<StagingPool> make_fresh_pool(std::size_t slabs) {
  auto pool = StagingPool::make(
      {.bytes = slabs * slab_bytes, .huge_pages = false, .populate = false, .slab_bytes = slab_bytes});
  REQUIRE(bool(pool));
  return *pool;
}

class MemorySink final : public staging::Sink {
 public:
  enum class Mode { at_once, held };  // when slabs are given back
  explicit MemorySink(Mode mode = Mode::at_once) : mode_(mode) {}

  void write(std::uint64_t offset, const std::byte* memory, std::size_t bytes, Release release) override {
    {
      const std::lock_guard lock(mutex_);
      if (file.size() < offset + bytes) file.resize(offset + bytes);
      if (mode_ == Mode::held) {
        held_.push_back({offset, memory, bytes, std::move(release)});
        came_.notify_all();
        return;
      }
      std::memcpy(file.data() + offset, memory, bytes);
    }
    release(error);
  }
  // Slabs that are held are read only now: what was done to them meanwhile shows.
  bool release_one(double seconds = 5) {
    Slab slab;
    {
      std::unique_lock lock(mutex_);
      if (!came_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return !held_.empty(); }))
        return false;
      slab = std::move(held_.front());
      held_.erase(held_.begin());
      std::memcpy(file.data() + slab.offset, slab.memory, slab.bytes);
    }
    slab.release(error);
    return true;
  }
  void release_all_from_now() {
    {
      const std::lock_guard lock(mutex_);
      mode_ = Mode::at_once;
    }
    while (release_one(0)) {
    }
  }
  std::size_t held() const {
    const std::lock_guard lock(mutex_);
    return held_.size();
  }

  std::vector<std::uint8_t> file;  // read it once everything is released
  Error error;                     // that slabs are released with

 private:
  struct Slab {
    std::uint64_t offset = 0;
    const std::byte* memory = nullptr;
    std::size_t bytes = 0;
    Release release;
  };
  mutable std::mutex mutex_;
  std::condition_variable came_;
  Mode mode_;
  std::vector<Slab> held_;
};

// Regions of random content, and the file that they should become.
struct State {
  State(std::vector<std::size_t> sizes, std::uint64_t seed, std::size_t header_bytes = 4096)
      : header(header_bytes) {
    Rng rng(seed);
    for (auto& byte : header) byte = std::byte(rng.next());
    for (const auto size : sizes) {
      auto& region = regions.emplace_back(size);
      for (auto& byte : region) byte = std::uint8_t(rng.next());
    }
    for (const auto byte : header) expected.push_back(std::to_integer<std::uint8_t>(byte));
    for (const auto& region : regions) expected.insert(expected.end(), region.begin(), region.end());
  }
  CaptureSpec spec(unsigned threads = 1) const {
    CaptureSpec made{
        .header = header, .regions = {}, .foreign = {}, .block_bytes = block_bytes, .threads = threads};
    for (const auto& region : regions)
      made.regions.push_back({reinterpret_cast<const std::byte*>(region.data()), region.size()});
    return made;
  }
  void overwrite(std::size_t region) { std::ranges::fill(regions[region], std::uint8_t{0xee}); }
  void overwrite_all() {
    for (std::size_t i = 0; i < regions.size(); ++i) overwrite(i);
  }
  std::vector<std::uint32_t> all() const {
    std::vector<std::uint32_t> indices(regions.size());
    std::iota(indices.begin(), indices.end(), 0u);
    return indices;
  }

  std::vector<std::byte> header;
  std::vector<std::vector<std::uint8_t>> regions;
  std::vector<std::uint8_t> expected;
};

inline std::vector<std::size_t> random_sizes(std::uint64_t seed, std::size_t count, std::size_t bytes_max) {
  Rng rng(seed);
  std::vector<std::size_t> sizes(count);
  for (auto& size : sizes) size = rng.chance(0.1) ? 0 : rng.below(rng.chance(0.5) ? 300 : bytes_max);
  return sizes;
}

inline std::shared_ptr<Capture> make_capture(const std::shared_ptr<StagingPool>& pool,
                                             const std::shared_ptr<MemorySink>& sink, CaptureSpec spec) {
  auto capture = Capture::make(pool, sink, std::move(spec));
  REQUIRE(bool(capture));
  return *capture;
}

// That the file and all checksums are those of the state as it was.
inline void check_saved(const Capture& capture, const MemorySink& sink, const State& state) {
  CHECK(!capture.has_ended());
  REQUIRE(sink.file.size() == state.expected.size());
  CHECK(sink.file == state.expected);
  const auto& crc32 = kernels::best_crc32();
  for (std::size_t block = 0; block < capture.block_crcs().size(); ++block) {
    const auto at = block * block_bytes, bytes = std::min(block_bytes, state.expected.size() - at);
    CHECK_EQ(capture.block_crcs()[block], crc32.of(state.expected.data() + at, bytes));
  }
  const auto crcs = capture.region_crcs();
  REQUIRE(crcs.size() == state.regions.size());
  std::size_t at = state.header.size();
  for (std::size_t i = 0; i < crcs.size(); ++i) {
    CHECK_EQ(crcs[i], crc32.of(state.expected.data() + at, state.regions[i].size()));
    at += state.regions[i].size();
  }
}

}  // namespace pccl::check
