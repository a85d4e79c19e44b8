#include "fuzz/target.hpp"

namespace pccl::fuzz {

std::vector<Target>& targets() {
  static std::vector<Target> all;
  return all;
}

const Target* target_named(const std::string& name) {
  for (const auto& target : targets())
    if (target.name == name) return &target;
  return nullptr;
}

bool add_target(const char* name, void (*run)(ByteView), Bytes (*seed)(Rng&)) {
  targets().push_back({name, run, seed});
  return true;
}

}  // namespace pccl::fuzz
