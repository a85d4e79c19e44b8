#include "kernels/reduction.hpp"

#include <utility>

#include "kernels/galois.hpp"

namespace pccl::kernels {
namespace {

class Numbers : public Reduction {
 public:
  explicit Numbers(ReduceOp op) : op_(op) {}

  void combine(DType element, Wire incoming, Wire out, const ReduceArgs& args,
               const Contributors&) const override {
    kernels::combine(element, op_, incoming, out, args);
  }
  void combine_keep(DType element, Wire incoming, const ReduceArgs& args, const Contributors&,
                    void* keep) const override {
    kernels::combine_keep(element, op_, incoming, args, keep);
  }
  double divisor(std::uint32_t world) const override { return op_ == ReduceOp::avg ? world : 1.0; }

 private:
  ReduceOp op_;
};

class GaloisSums : public Reduction {
 public:
  explicit GaloisSums(std::vector<std::vector<std::uint8_t>> by_segment)
      : by_segment_(std::move(by_segment)) {}

  void combine(DType element, Wire, Wire, const ReduceArgs& args, const Contributors& from) const override {
    best_galois().combine({.out = args.out,
                           .incoming = args.incoming,
                           .own = args.own,
                           .bytes = args.count * size_of(element),
                           .incoming_factor = factor(from.incoming, from.segment),
                           .own_factor = factor(from.own, from.segment),
                           .streaming = args.streaming});
  }
  void combine_keep(DType element, Wire incoming, const ReduceArgs& args, const Contributors& from,
                    void* keep) const override {
    kernels::copy(keep, args.own, args.count * size_of(element), true);
    combine(element, incoming, Wire::element, args, from);
  }
  bool keeps_single() const override { return false; }

 private:
  std::uint8_t factor(std::uint32_t position, std::uint32_t segment) const {
    if (position == partial_sum) return 1;
    if (segment >= by_segment_.size() || position >= by_segment_[segment].size()) return 0;  // nobody, too
    return by_segment_[segment][position];
  }

  std::vector<std::vector<std::uint8_t>> by_segment_;
};

}  // namespace

std::shared_ptr<const Reduction> reduction_of(ReduceOp op) { return std::make_shared<Numbers>(op); }

std::shared_ptr<const Reduction> galois_reduction(std::vector<std::vector<std::uint8_t>> by_segment) {
  return std::make_shared<GaloisSums>(std::move(by_segment));
}

}  // namespace pccl::kernels
