// A peer's blocks and outputs of a coded reduce: which belongs to which sum, and zeros where a block is
// shorter than those of others. Owned by the operation's memory.
#pragma once
#include <memory>
#include <vector>

#include "base/bytes.hpp"
#include "collective/coded.hpp"
#include "collective/executor.hpp"

namespace pccl {

// What the caller gives: its blocks by number, each at most `block_bytes` long, and its outputs, all of that
// length, in the order of the sums that it owns.
struct CodedRequest {
  std::shared_ptr<const CodedSums> sums;
  std::uint32_t position = 0, world = 1;
  std::vector<ByteView> blocks;
  std::vector<std::uint8_t*> outputs;
  std::uint64_t block_bytes = 0;
};

// Whether the sums can be made, and the memory is what they need.
Error fault_of(const CodedRequest& request);

class CodedMemory {
 public:
  explicit CodedMemory(const CodedRequest& request);

  void begin(const Layout& layout);                     // an attempt: its chunks may be others than before
  const std::uint8_t* input(const Chunk& chunk) const;  // null: nothing of this peer is in the sum
  std::uint8_t* output(const Chunk& chunk) const;

 private:
  static constexpr std::uint32_t none = UINT32_MAX;
  std::uint64_t block_bytes_;
  std::vector<ByteView> blocks_;
  std::vector<std::uint32_t> block_of_;           // by segment
  std::vector<std::uint8_t*> output_of_;          // by segment
  std::vector<std::uint8_t> zeros_;               // a chunk of them
  std::vector<std::vector<std::uint8_t>> tails_;  // by block: the chunk in which it ends, filled up
};

}  // namespace pccl
