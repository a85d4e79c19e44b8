#include "runtime/coded_memory.hpp"

#include <algorithm>
#include <cstring>

namespace pccl {

Error fault_of(const CodedRequest& request) {
  const auto wrong = [](const std::string& why) { return Error{ErrorCode::usage, why}; };
  if (request.sums == nullptr || request.sums->empty()) return wrong("there is nothing to sum up");
  if (request.block_bytes == 0 || request.block_bytes > limits::elements_max / request.sums->size())
    return wrong("blocks have from 1 byte to 2**44 in all sums together");
  if (auto error = fault_of(*request.sums, request.world)) return error;
  std::size_t owned = 0;
  for (const auto& sum : *request.sums) {
    owned += sum.owner == request.position;
    for (const auto& term : sum.terms)
      if (term.position == request.position && term.block >= request.blocks.size())
        return wrong("a sum has block " + std::to_string(term.block) + " of this peer, which gives " +
                     std::to_string(request.blocks.size()));
  }
  if (owned != request.outputs.size())
    return wrong("this peer owns " + std::to_string(owned) + " of the sums, and out has room for " +
                 std::to_string(request.outputs.size()));
  for (const auto& block : request.blocks)
    if (block.size() > request.block_bytes)
      return wrong("a block has " + std::to_string(block.size()) + " bytes, more than the " +
                   std::to_string(request.block_bytes) + " of the longest one");
  return {};
}

CodedMemory::CodedMemory(const CodedRequest& request)
    : block_bytes_(request.block_bytes), blocks_(request.blocks) {
  auto output = request.outputs.begin();
  for (const auto& sum : *request.sums) {
    const auto own = std::ranges::find(sum.terms, request.position, &CodedTerm::position);
    block_of_.push_back(own == sum.terms.end() ? none : own->block);
    output_of_.push_back(sum.owner == request.position ? *output++ : nullptr);
  }
}

void CodedMemory::begin(const Layout& layout) {
  tails_.assign(blocks_.size(), {});
  zeros_.clear();
  if (layout.chunks() == 0) return;
  const std::uint64_t most = layout.chunk(0).count;  // of bytes in a chunk, but for the last one of a block
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    const auto& block = blocks_[b];
    if (block.size() == block_bytes_) continue;
    zeros_.resize(most);
    const auto whole = block.size() / most * most;
    if (whole == block.size()) continue;
    tails_[b].resize(most);
    std::memcpy(tails_[b].data(), block.data() + whole, block.size() - whole);
  }
}

const std::uint8_t* CodedMemory::input(const Chunk& chunk) const {
  const auto number = block_of_[chunk.offset / block_bytes_];
  if (number == none) return nullptr;
  const auto& block = blocks_[number];
  const auto at = chunk.offset % block_bytes_;
  if (at + chunk.count <= block.size()) return block.data() + at;
  return at < block.size() ? tails_[number].data() : zeros_.data();
}

std::uint8_t* CodedMemory::output(const Chunk& chunk) const {
  return output_of_[chunk.offset / block_bytes_] + chunk.offset % block_bytes_;
}

}  // namespace pccl
