// The memory of one operation: the caller's tensors, the hidden weights, the undo copy; and the arithmetic on
// them. Owned by the I/O thread from post to delivery. The input is intact whenever an attempt did not
// commit.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "collective/executor.hpp"
#include "runtime/slots.hpp"
#include "runtime/undo_pool.hpp"

namespace pccl {

struct TensorSpan {
  const std::uint8_t* in = nullptr;
  std::uint8_t* out = nullptr;  // the same address: in place
  std::uint64_t count = 0;      // of a call in blocks: of one block
  DType dtype = DType::float32;
};

// Of a call in blocks: which block of `in` and of `out` a segment is.
struct BlockSpan {
  Call call = Call::all_reduce;
  std::uint64_t position = 0, world = 1;
  std::uint64_t in(std::uint64_t segment) const;
  std::uint64_t out(std::uint64_t segment) const;
};

class OperationMemory {
 public:
  OperationMemory(std::vector<TensorSpan> tensors, ReduceOp op, std::optional<double> weight,
                  UndoPool& undo_pool, Call call = Call::all_reduce);

  bool in_place() const { return in_place_; }
  // What stochastic rounding depends on: the operation and who encodes.
  void set_draw(std::uint64_t seed) { seed_ = seed; }
  void begin(const Executor& executor);  // a new attempt
  void keep(const Executor& executor, std::uint32_t chunk);
  void restore();  // the attempt is dropped: the caller's bytes come back
  // False: the sum that was to be encoded is not finite.
  [[nodiscard]] bool run(const Executor& executor, const Work& work, SlotPool& slots);
  std::uint8_t* output(const Chunk& chunk);
  const std::uint8_t* input(const Chunk& chunk) const;
  void scale_own(const Executor& executor, std::uint32_t chunk, std::uint8_t* to) const;
  // False: an element is not finite, and cannot be encoded.
  [[nodiscard]] bool encode_own(const Executor& executor, std::uint32_t chunk, std::uint8_t* to) const;
  bool own_is_finite(const Executor& executor, std::uint32_t chunk) const;
  double total_weight() const;
  UndoPool::Buffer release_undo() { return std::move(undo_); }

 private:
  void reduce(const Executor& executor, const Work& work, std::uint8_t* slot);
  void finish(const Executor& executor, const Work& work, std::uint8_t* slot);
  void take_own(const Executor& executor, const Work& work);
  [[nodiscard]] bool fold(const Executor& executor, const Work& work, SlotPool& slots);
  [[nodiscard]] bool fold_quantized(const Executor& executor, const Chunk& chunk,
                                    const std::vector<const std::uint8_t*>& parts, std::uint8_t* encoded);
  void decode(const Executor& executor, const Work& work, const std::uint8_t* slot);
  static std::optional<kernels::Codec> codec_of(const Executor& executor, const Chunk& chunk);
  kernels::Draw draw_of(const Chunk& chunk, bool sum) const;
  void fold_plain(const Chunk& chunk, const std::vector<const std::uint8_t*>& parts, double divisor,
                  std::uint8_t* to);
  void add_part(const Chunk& chunk, const Part& part, const std::uint8_t* bytes, bool first);
  void finish_sum(const Chunk& chunk, std::uint32_t world, std::uint8_t* to);
  std::uint8_t* undo_of(const Chunk& chunk);
  bool hidden(const Chunk& chunk) const { return chunk.tensor == tensors_.size(); }

  std::vector<TensorSpan> tensors_;
  std::vector<std::uint64_t> undo_offset_;  // by tensor
  ReduceOp op_;
  Call call_;
  BlockSpan blocks_;
  std::optional<double> weight_;
  bool in_place_ = false;
  bool streaming_ = false;
  std::vector<double> weights_;    // by position
  std::vector<std::uint8_t> sum_;  // of a fold whose accumulators are wider than its elements
  UndoPool& undo_pool_;
  UndoPool::Buffer undo_;
  std::vector<std::uint8_t> narrow_;  // 16-bit floats on their way to float32 sums
  std::vector<Chunk> kept_;
  std::uint64_t bytes_ = 0;
  std::uint64_t seed_ = 0;
};

}  // namespace pccl
