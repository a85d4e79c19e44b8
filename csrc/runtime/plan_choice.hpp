// From what an operation is and what the view says to the plan that all its peers carry out. Pure: everything
// that the choice depends on is in the view or in the descriptor, so that every peer chooses the same.
#pragma once
#include "wire/values.hpp"

namespace pccl {

std::uint64_t total_bytes(const Descriptor& descriptor);
bool moves_data(const Descriptor& descriptor);

// Whether all of them are on one host, and chunks between them stay where they are.
bool in_one_place(const View& view, const std::vector<PeerId>& peers);

// Who carries out an operation, as far as its plan depends on it.
struct Crew {
  std::uint32_t group = 0;
  std::uint32_t peers = 1;
  bool in_one_place = false;
};

// The descriptor with algorithm, quantization and chunk size as they will be.
Descriptor plan_descriptor(const Descriptor& descriptor, const PlanHints& hints, const Crew& crew);

}  // namespace pccl
