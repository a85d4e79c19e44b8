// Every decoder: the corpus again, and mutants of it. See fuzz/target.hpp.
//   PCCL_FUZZ_RUNS=n        mutants of each target (default: few)
//   PCCL_FUZZ_SECONDS=s     or for so long each
//   PCCL_FUZZ_TARGET=name   that one only
//   PCCL_FUZZ_KEEP=folder   the smallest inputs that took a new way are written to FOLDER/name.txt
//                           (`build_tests --sanitize coverage` tells ways apart)
// An input that fails is printed; before each run it is in the file PCCL_FUZZ_LAST, for what ends the
// program.
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "fuzz/campaign.hpp"

namespace pccl::fuzz {
namespace {

std::string word(const char* variable) {
  const auto* text = std::getenv(variable);
  return text == nullptr ? "" : text;
}

TEST(corpus_and_mutants) {
  const auto only = word("PCCL_FUZZ_TARGET"), keep = word("PCCL_FUZZ_KEEP");
  const auto runs = word("PCCL_FUZZ_RUNS"), seconds = word("PCCL_FUZZ_SECONDS");
  Budget budget;
  if (!runs.empty()) budget.runs = std::strtoull(runs.c_str(), nullptr, 10);
  if (!seconds.empty()) budget = {std::uint64_t{1} << 60, std::strtod(seconds.c_str(), nullptr)};
  CHECK(only.empty() || target_named(only) != nullptr);
  for (const auto& target : targets()) {
    if (!only.empty() && target.name != only) continue;
    Campaign campaign(target, word("PCCL_FUZZ_LAST"));
    campaign.replay(read_corpus(corpus_file(target.name)));
    campaign.run(budget);
    std::printf("  %s\n", campaign.report().c_str());
    if (!keep.empty()) write_corpus(keep + "/" + target.name + ".txt", campaign.small());
  }
}

// The fuzzer itself: it finds a length that a decoder believes, and says with which bytes.
void believes(ByteView bytes) {
  if (bytes.size() < 6 || load_little<std::uint32_t>(bytes.data()) != 0x6c636370) return;
  HOLDS(bytes[4] <= bytes.size());
}
Bytes harmless(Rng&) { return {'p', 'c', 'c', 'l', 1, 0, 0}; }

TEST(a_planted_fault_is_found) {
  const Target planted{"planted", believes, harmless};
  Campaign campaign(planted, "");
  campaign.expect_failure();
  campaign.run({20'000, 20});
  CHECK(campaign.failed());
}

}  // namespace
}  // namespace pccl::fuzz
