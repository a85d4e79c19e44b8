// The executor of a planned operation: which plan, cut how, with which bounds. Pure.
#pragma once
#include <memory>

#include "collective/executor.hpp"

namespace pccl {

// A peer's place among those that carry out an operation.
struct Standing {
  std::uint32_t position = 0, world = 1;
  std::uint32_t root = 0;  // the root's position, of calls that have one
  bool in_place = false;
  bool eager = false;            // may send before it is asked
  std::uint32_t slots_max = 64;  // chunks that it holds outside of the output
};

// Null: the call moves no tensors by a plan.
std::unique_ptr<Executor> make_executor(const Descriptor& planned, const Standing& standing);

}  // namespace pccl
