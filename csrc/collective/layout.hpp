// How the tensors of one operation are cut into chunks and segments: pure arithmetic, the same on every peer.
#pragma once
#include <cstdint>
#include <vector>

#include "base/limits.hpp"
#include "wire/messages.hpp"

namespace pccl {

// A chunk lies in one tensor. `offset` and `count` are in elements.
struct Chunk {
  std::uint32_t tensor = 0;
  std::uint32_t count = 0;
  std::uint64_t offset = 0;
  DType dtype = DType::float32;
  std::uint64_t element_bytes() const { return std::uint64_t{count} * size_of(dtype); }
};

class Layout {
 public:
  // Cuts `tensors`, taken as one sequence of bytes, into `segments` parts of nearly equal size and each into
  // chunks of at most `chunk_bytes`. A hidden tensor of `weights` float64 follows, one chunk and segment
  // each.
  Layout(const std::vector<TensorShape>& tensors, std::uint32_t segments, std::uint32_t chunk_bytes,
         std::uint32_t weights);

  // Segment b is block b of every tensor; `tensors` count one block.
  static Layout of_blocks(const std::vector<TensorShape>& tensors, std::uint32_t blocks,
                          std::uint32_t chunk_bytes);

  const Chunk& chunk(std::uint32_t index) const { return chunks_[index]; }
  std::uint32_t chunks() const { return std::uint32_t(chunks_.size()); }
  std::uint32_t segment_begin(std::uint32_t segment) const { return segment_begin_[segment]; }
  std::uint32_t segment_end(std::uint32_t segment) const { return segment_begin_[segment + 1]; }
  std::uint32_t chunks_in(std::uint32_t segment) const {
    return segment_end(segment) - segment_begin(segment);
  }
  std::uint64_t bytes() const { return bytes_; }      // of the caller's tensors
  std::uint32_t tensors() const { return tensors_; }  // without the hidden one
  bool hidden(std::uint32_t index) const { return chunks_[index].tensor == tensors_; }

 private:
  Layout() = default;
  std::vector<Chunk> chunks_;
  std::vector<std::uint32_t> segment_begin_;
  std::uint64_t bytes_ = 0;
  std::uint32_t tensors_ = 0;
};

// The chunk size for an operation: never more than a quarter of what one stripe carries of a segment, so that
// the pipeline has something to overlap; never so small that headers cost more than they gain.
std::uint32_t choose_chunk_bytes(std::uint64_t operation_bytes, std::uint32_t world, std::uint32_t stripes,
                                 std::uint32_t hint);

}  // namespace pccl
