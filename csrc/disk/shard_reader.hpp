#pragma once
// Reads parts of a shard file into memory, every byte checked: all blocks that the runs touch are read once,
// by several threads, and only a block whose checksum is right is copied. Any thread may call; it takes part.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "disk/disk.hpp"

namespace pccl::disk {

// `count` rows of `bytes`: row i lies in the file at file_offset + i * file_stride and goes to
// to + i * memory_stride. Rows do not overlap in memory, nor do runs.
struct ReadRun {
  std::uint64_t file_offset = 0;
  std::byte* to = nullptr;
  std::uint64_t bytes = 0;
  std::uint64_t count = 1;
  std::uint64_t file_stride = 0;
  std::uint64_t memory_stride = 0;
};

struct ReadPlan {
  std::string path;
  std::uint64_t file_bytes = 0;
  std::uint64_t block_bytes = 0;          // a multiple of 4096, 16 MiB at most
  std::span<const std::uint32_t> crcs{};  // CRC-32 (IEEE) of each block of the file, the last one shorter
  std::vector<ReadRun> runs{};
};

struct ReadStats {
  std::uint64_t bytes_read = 0;    // from the disk
  std::uint64_t bytes_copied = 0;  // to the runs
  std::uint64_t blocks = 0;
  unsigned threads = 0;
  bool direct = false;
  double seconds = 0;
};

// Errors: `damaged` names file, block and byte range (also a file that is missing, shorter or longer, or that
// the device cannot read), `usage` a plan that contradicts itself, `checkpoint` whatever else the system
// says. After an error the memory of any run may hold bytes of blocks that were right, and nothing else.
// `threads`: 1 to 4.
Result<ReadStats> read_verified(Disk& disk, const ReadPlan& plan, unsigned threads);

}  // namespace pccl::disk
