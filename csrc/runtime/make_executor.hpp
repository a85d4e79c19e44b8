// The executor of a planned operation: which plan, cut how, with which bounds. Pure.
#pragma once
#include <memory>

#include "collective/coded.hpp"
#include "collective/executor.hpp"

namespace pccl {

// A peer's place among those that carry out an operation.
struct Standing {
  std::uint32_t position = 0, world = 1;
  std::uint32_t root = 0;  // the root's position, of calls that have one
  bool in_place = false;
  bool eager = false;                  // may send before it is asked
  std::uint32_t slots_max = 64;        // chunks that it holds outside of the output
  std::uint64_t own_bytes = 4u << 20;  // of its own input that it copies in one turn
  std::vector<std::uint32_t> hosts{};  // by position: who has the same number is on the same host
  const CodedSums* sums = nullptr;     // of a coded reduce
};

// The hosts of these peers; of whom it is not known, nobody else is on the host.
std::vector<std::uint32_t> hosts_of(const View& view, const std::vector<PeerId>& peers);

// Null: the call moves no tensors by a plan.
std::unique_ptr<Executor> make_executor(const Descriptor& planned, const Standing& standing);

}  // namespace pccl
