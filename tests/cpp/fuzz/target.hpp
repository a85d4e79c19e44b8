// Decoders that take any bytes: each is one function, which libFuzzer, the fuzzer of our own and the replay
// of the corpus call alike. What must hold is checked with HOLDS.
#pragma once
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/rng.hpp"
#include "check.hpp"

namespace pccl::fuzz {

struct Target {
  std::string name;
  void (*run)(ByteView);
  Bytes (*seed)(Rng&);  // something valid, drawn
};

std::vector<Target>& targets();
const Target* target_named(const std::string& name);
bool add_target(const char* name, void (*run)(ByteView), Bytes (*seed)(Rng&));

}  // namespace pccl::fuzz

#define FUZZ_TARGET(name, run, seed) \
  [[maybe_unused]] static const bool target_##name = ::pccl::fuzz::add_target(#name, run, seed)

// A failed check; what was decoded is told by whoever called.
#define HOLDS(...) \
  ::pccl::check::check(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, std::source_location::current())
