// The kinds of schedules, and for each numbered rule the kind that notices soonest when it is missing.
#pragma once
#include <string>
#include <vector>

#include "sim/scenario.hpp"

namespace pccl::sim {

const std::vector<Flavour>& flavours();
const Flavour& flavour_named(const std::string& name);

struct NumberedRule {
  const char* name;
  bool Rules::* rule;
  const char* flavour;
};
std::vector<NumberedRule> numbered_rules();

}  // namespace pccl::sim
