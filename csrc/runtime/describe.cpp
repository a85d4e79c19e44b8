#include "runtime/describe.hpp"

#include <algorithm>

namespace pccl {

namespace {
constexpr std::size_t tensors_named = 4;
}

std::string describe(const TensorShape& tensor) {
  return std::to_string(tensor.count) + " x " + std::string(name(tensor.dtype));
}

namespace {
std::string quantization_of(const Descriptor& d) {
  if (d.quantization == Quantization::none) return "none";
  return std::string(name(d.quantization)) + " in blocks of " + std::to_string(d.quantization_block) +
         (d.stochastic ? ", stochastic" : "") + (d.skips ? ", non_finite=skip" : "");
}
}  // namespace

std::string describe(const Descriptor& d) {
  std::string text = std::string(name(d.call)) + "(";
  if (d.call == Call::all_reduce || d.call == Call::reduce_scatter) text += std::string(name(d.op)) + ", ";
  if (has_root(d.call)) text += "root peer " + std::to_string(d.root) + ", ";
  for (std::size_t i = 0; i < d.tensors.size() && i < tensors_named; ++i)
    text += (i > 0 ? ", " : "") + describe(d.tensors[i]);
  if (d.tensors.size() > tensors_named) text += ", ... " + std::to_string(d.tensors.size()) + " tensors";
  if (d.call == Call::coded_reduce) text += " in a block";
  if (d.blocks != 0) text += " for each of " + std::to_string(d.blocks) + " peers";
  if (d.weighted) text += ", weighted";
  if (d.quantization != Quantization::none) text += ", " + quantization_of(d);
  if (d.on_loss == OnLoss::raise) text += ", on_loss=raise";
  if (d.on_loss == OnLoss::remake) text += ", remake";
  return text + ")";
}

std::string hidden_difference(const Descriptor& mine, const Descriptor& theirs) {
  if (mine.call != theirs.call) return {};
  for (std::size_t i = tensors_named; i < std::min(mine.tensors.size(), theirs.tensors.size()); ++i)
    if (mine.tensors[i] != theirs.tensors[i])
      return "; tensor " + std::to_string(i) + " is " + describe(mine.tensors[i]) + " and " +
             describe(theirs.tensors[i]);
  if (mine.sums != theirs.sums) return "; the sums differ: their owners, blocks or coefficients";
  // A plan that follows from such a difference is none of its own.
  if (const auto own = quantization_of(mine), other = quantization_of(theirs); own != other)
    return "; the quantization is " + own + ", and " + other;
  const auto plan = [](const Descriptor& d) {
    return std::string(name(d.algorithm)) + " in chunks of " + std::to_string(d.chunk_bytes);
  };
  const bool same = mine.algorithm == theirs.algorithm && mine.chunk_bytes == theirs.chunk_bytes;
  return same ? std::string() : "; the plans are " + plan(mine) + " and " + plan(theirs);
}

}  // namespace pccl
