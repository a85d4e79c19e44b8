// The memory of one operation: the caller's tensors, the hidden weights, the undo copy; and the arithmetic on
// them. Owned by the I/O thread from post to delivery. The input is intact whenever an attempt did not
// commit, but where the caller makes it again.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "collective/executor.hpp"
#include "kernels/reduction.hpp"
#include "runtime/coded_memory.hpp"
#include "runtime/slots.hpp"
#include "runtime/undo_pool.hpp"

namespace pccl {

struct TensorSpan {
  const std::uint8_t* in = nullptr;
  std::uint8_t* out = nullptr;  // the same address: in place
  std::uint64_t count = 0;      // of a call in blocks: of one block
  DType dtype = DType::float32;
};

// Error feedback of one tensor, in accumulators: what is added to its values before they are encoded, and
// what encoding lost of them then. Different memory: another attempt begins with `in` again.
struct ResidualSpan {
  const std::uint8_t* in = nullptr;
  std::uint8_t* out = nullptr;
};

// Instead of a weight: this peer's values are not finite, and count for nothing.
inline constexpr double skipped_weight = -1.0;

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
                  UndoPool& undo_pool, Call call = Call::all_reduce,
                  std::vector<ResidualSpan> residuals = {});
  // With any arithmetic; neither weighted nor quantized.
  OperationMemory(std::vector<TensorSpan> tensors, std::shared_ptr<const kernels::Reduction> reduction,
                  UndoPool& undo_pool, Call call);
  OperationMemory(const CodedRequest& coded, UndoPool& undo_pool);

  bool in_place() const { return in_place_; }
  // No undo copy: the caller makes its input again. Before the first attempt.
  void keep_no_input();
  // What stochastic rounding depends on: the operation and who encodes.
  void set_draw(std::uint64_t seed) { seed_ = seed; }
  void begin(const Executor& executor);  // a new attempt
  void keep(const Executor& executor, std::uint32_t chunk);
  void restore();  // the attempt is dropped: the caller's bytes come back
  // False: the sum that was to be encoded is not finite, or there is nothing to sum: all_skipped().
  [[nodiscard]] bool run(const Executor& executor, const Work& work, SlotPool& slots);
  std::uint8_t* output(const Chunk& chunk);
  void take(const Chunk& chunk, const std::uint8_t* from);  // the output, from memory that is mapped here
  const std::uint8_t* input(const Chunk& chunk) const;
  // The own bytes of a chunk, also where the sum has taken their place.
  const std::uint8_t* contribution(const Executor& executor, std::uint32_t chunk);
  void scale_own(const Executor& executor, std::uint32_t chunk, std::uint8_t* to) const;
  // False: an element is not finite, and cannot be encoded.
  [[nodiscard]] bool encode_own(const Executor& executor, std::uint32_t chunk, std::uint8_t* to);
  bool own_is_finite(const Executor& executor, std::uint32_t chunk) const;
  double total_weight() const;
  // Positions whose weight says so, once all weights are there.
  std::vector<std::uint32_t> skipped() const;
  bool all_skipped() const;
  // The residuals that came out are those of this attempt.
  bool feedback() const { return feedback_; }
  UndoPool::Buffer release_undo() { return std::move(undo_); }

 private:
  // A sum grows in the innermost cache while its parts stream by.
  static constexpr std::size_t fold_elements = 4096;

  void reduce(const Executor& executor, const Work& work, SlotPool& slots);
  void finish(const Executor& executor, const Work& work, SlotPool& slots);
  static std::uint8_t* sums(const Chunk& chunk, const Work& work, SlotPool& slots);
  void take_own(const Executor& executor, const Work& work);
  [[nodiscard]] bool fold(const Executor& executor, const Work& work, SlotPool& slots);
  [[nodiscard]] bool fold_quantized(const Executor& executor, const Chunk& chunk,
                                    const std::vector<const std::uint8_t*>& parts, std::uint8_t* encoded);
  [[nodiscard]] bool fold_quantized_range(const Executor& executor, const kernels::Codec& codec,
                                          const Chunk& range, const std::vector<const std::uint8_t*>& parts,
                                          std::uint8_t* encoded);
  [[nodiscard]] bool encode_corrected(const Executor& executor, const Chunk& chunk, std::uint8_t* to);
  void add_residual(const Chunk& chunk, std::uint8_t* sum, double weight) const;
  [[nodiscard]] bool keep_error(const Executor& executor, const Chunk& chunk, const std::uint8_t* sum,
                                double divisor);
  std::size_t residual_offset(const Chunk& chunk) const;
  double own_weight() const { return weight_ ? counted(*weight_) : 1.0; }
  static double counted(double weight) { return weight > 0 ? weight : 0; }
  void decode(const Executor& executor, const Work& work, const std::uint8_t* slot);
  static std::optional<kernels::Codec> codec_of(const Executor& executor, const Chunk& chunk);
  kernels::Draw draw_of(const Chunk& chunk, bool sum) const;
  void fold_plain(const Executor& executor, const Work& work, const std::vector<const std::uint8_t*>& parts,
                  std::uint8_t* to);
  void fold_range(const Executor& executor, const Work& work, const std::vector<const std::uint8_t*>& parts,
                  std::uint8_t* to, std::size_t begin, std::size_t count);
  void fold_weighted(const Executor& executor, const Work& work,
                     const std::vector<const std::uint8_t*>& parts, std::uint8_t* to);
  static std::uint32_t contributor(const Part& part);
  std::uint8_t* undo_of(const Chunk& chunk);
  bool hidden(const Chunk& chunk) const { return chunk.tensor == tensors_.size(); }

  std::vector<TensorSpan> tensors_;
  std::vector<std::uint64_t> undo_offset_;  // by tensor
  std::shared_ptr<const kernels::Reduction> reduction_;
  Call call_;
  BlockSpan blocks_;
  std::optional<CodedMemory> coded_;
  std::optional<double> weight_;
  std::vector<ResidualSpan> residuals_;  // by tensor; empty: no feedback
  bool feedback_ = false;                // in this attempt
  std::vector<std::uint8_t> zeros_;      // of the largest chunk, where this peer is skipped
  bool in_place_ = false;
  bool keeps_ = true;  // what is overwritten
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
