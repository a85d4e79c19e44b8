// Thousands of schedules of the production protocol and executor, drawn from seeds; and every numbered rule
// switched off, which the same schedules must notice.
//   PCCL_SIM_SCHEDULES=n     how many schedules
//   PCCL_SIM_SEED=n          replays one with a trace; PCCL_SIM_TRACE=2 with every frame
//   PCCL_SIM_FLAVOUR=name    of that kind only;  PCCL_SIM_WITHOUT=rule  with a rule switched off
#include <cstdio>
#include <cstdlib>
#include <string>

#include "check.hpp"
#include "sim/flavours.hpp"
#include "sim/world.hpp"

namespace pccl::sim {

namespace {

std::uint64_t number(const char* variable, std::uint64_t otherwise) {
  const auto* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

std::string word(const char* variable) {
  const auto* text = std::getenv(variable);
  return text == nullptr ? "" : text;
}

std::string replay(const Flavour& flavour, std::uint64_t seed, const std::string& without = {}) {
  return "\n  replay: PCCL_SIM_FLAVOUR=" + flavour.name + " PCCL_SIM_SEED=" + std::to_string(seed) +
         (without.empty() ? "" : " PCCL_SIM_WITHOUT=" + without) +
         " build/tests-none/pccl_tests --filter simulator.schedules";
}

struct Tally {
  std::uint64_t events = 0, commits = 0, failures = 0, aborts = 0, admitted = 0, skipped = 0, gone = 0;
  void count(const World& world) {
    const auto& o = world.oracle;
    events += world.queue.handled();
    commits += o.commits, failures += o.failures, aborts += o.aborts, admitted += o.joins, skipped += o.skips,
        gone += o.ends;
  }
  void print(const std::string& name, std::uint64_t first, std::uint64_t last) const {
    std::printf(
        "  %-8s seeds %llu-%llu: %llu events, %llu commits, %llu failures, %llu aborted attempts, %llu peers "
        "admitted, %llu boundaries skipped, %llu sessions ended\n",
        name.c_str(), static_cast<unsigned long long>(first), static_cast<unsigned long long>(last),
        static_cast<unsigned long long>(events), static_cast<unsigned long long>(commits),
        static_cast<unsigned long long>(failures), static_cast<unsigned long long>(aborts),
        static_cast<unsigned long long>(admitted), static_cast<unsigned long long>(skipped),
        static_cast<unsigned long long>(gone));
  }
};

void run_schedules(const Flavour& flavour, std::uint64_t first, std::uint64_t last, const Rules& rules,
                   int trace) {
  Tally tally;
  for (std::uint64_t seed = first, failed = 0; seed <= last && failed < 5; ++seed) {
    World world(draw(flavour, seed, rules), trace);
    const auto what = world.run();
    tally.count(world);
    if (what.empty()) continue;
    ++failed;
    check::fail(std::source_location::current(), what + replay(flavour, seed, word("PCCL_SIM_WITHOUT")));
  }
  tally.print(flavour.name, first, last);
}

}  // namespace

TEST(schedules) {
  Rules rules;
  for (const auto& rule : numbered_rules())
    if (rule.name == word("PCCL_SIM_WITHOUT")) rules.*rule.rule = false;
  const auto only = word("PCCL_SIM_FLAVOUR");
  const auto schedules = number("PCCL_SIM_SCHEDULES", 12000);
  const bool one = !word("PCCL_SIM_SEED").empty();
  const auto first = number("PCCL_SIM_SEED", 1);
  for (const auto& flavour : flavours()) {
    if (!only.empty() ? flavour.name != only : one && flavour.name != "mixed") continue;
    const auto share = only.empty() ? (schedules + flavours().size() - 1) / flavours().size() : schedules;
    run_schedules(flavour, first, one ? first : share, rules, one ? int(number("PCCL_SIM_TRACE", 1)) : 0);
  }
}

// The seeds that notice that a rule is missing pass with it.
TEST(every_rule_is_needed) {
  constexpr std::uint64_t within = 4000;
  for (const auto& rule : numbered_rules()) {
    const auto& flavour = flavour_named(rule.flavour);
    Rules without;
    without.*rule.rule = false;
    std::uint64_t seed = 0;
    std::string what;
    while (what.empty() && ++seed <= within) what = World(draw(flavour, seed, without)).run();
    std::printf("  without %s, seed %llu of '%s': %.120s\n", rule.name, static_cast<unsigned long long>(seed),
                rule.flavour, what.substr(0, what.find('\n')).c_str());
    if (what.empty())
      check::fail(std::source_location::current(), std::string("nothing misses rule ") + rule.name);
    else
      CHECK_EQ(World(draw(flavour, seed)).run(), "");
  }
}

}  // namespace pccl::sim
