#pragma once
// What a plan of reading comes to, without a file: is it sound, which blocks does it touch, which of its rows
// lie in some bytes of the file. Pure, but for the copying into the caller's memory.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "disk/shard_reader.hpp"

namespace pccl::disk {

// Bytes [begin, end) of the file.
struct Extent {
  std::uint64_t begin = 0, end = 0;
};

// Where the plan contradicts itself: numbers that do not fit the file, memory or each other.
Error wrong_with(const ReadPlan& plan);

class ReadRows {
 public:
  explicit ReadRows(const ReadPlan& plan);  // of a plan that is sound

  // All blocks that rows touch, each once and whole, in extents of at most `bytes_max` (one block at least).
  std::vector<Extent> extents(std::uint64_t bytes_max) const;

  // Runs that may have bytes in the extent.
  std::vector<const ReadRun*> near(const Extent& extent) const;

 private:
  void mark(const ReadRun& run, std::vector<bool>& touched) const;

  const std::uint64_t file_bytes_, block_bytes_;
  std::vector<ReadRun> runs_;           // by their begin; none is empty
  std::vector<std::uint64_t> reaches_;  // reaches_[i]: the largest end of runs 0 to i
};

// Copies what the run has of the extent, whose bytes begin at `from`; says how many bytes that were.
std::uint64_t copy_rows(const ReadRun& run, const Extent& extent, const std::byte* from);

}  // namespace pccl::disk
