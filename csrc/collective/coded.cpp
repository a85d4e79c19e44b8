#include "collective/coded.hpp"

#include <algorithm>
#include <string>

namespace pccl {

namespace {

Error wrong(std::size_t sum, const std::string& why) {
  return {ErrorCode::usage, "sum " + std::to_string(sum) + " " + why};
}

// Who sends on the way to the owner, in order.
std::vector<std::uint32_t> senders_of(const CodedSum& sum) {
  std::vector<std::uint32_t> senders;
  for (const auto& term : sum.terms)
    if (term.position != sum.owner) senders.push_back(term.position);
  return senders;
}

// Of the position's part in one sum: the receiver's steps are counted as it counts its own.
struct Way {
  std::uint32_t segment = 0, owner = 0;
  bool copies = false;  // the sum is a block as it is: it arrives where it belongs
  std::vector<std::uint32_t> senders{};
  std::vector<std::uint16_t> steps{};  // of each sender, then of the owner
};

// The first one's chunks leave while the owner says that earlier ones have come.
void add_first(Plan& plan, const Way& way) {
  const auto next = way.senders.size() > 1 ? way.senders[1] : way.owner;
  Step own{.segment = way.segment, .merge = Merge::own};
  own.gate = std::int32_t(plan.steps.size()) + 1;
  own.to = {{next, way.steps[1]}};
  plan.steps.push_back(std::move(own));
  plan.steps.push_back({.segment = way.segment, .merge = Merge::signal, .from = std::int32_t(way.owner)});
}

void add_reduce(Plan& plan, const Way& way, std::size_t place) {
  Step step{.segment = way.segment, .merge = Merge::reduce};
  step.from = std::int32_t(way.senders[place - 1]);
  step.in = place == 1 ? Wire::element : Wire::accumulator;
  if (place == way.senders.size()) {
    if (way.copies) step.merge = Merge::replace;
    step.write = step.finish = step.signals = true;
    step.to = {{way.senders[0], std::uint16_t(way.steps[0] + 1)}};
  } else {
    step.out = Wire::accumulator;
    step.to = {{place + 1 == way.senders.size() ? way.owner : way.senders[place + 1], way.steps[place + 1]}};
  }
  plan.steps.push_back(std::move(step));
}

}  // namespace

Error fault_of(const CodedSums& sums, std::uint32_t world) {
  std::vector<std::uint32_t> steps(world);
  for (std::size_t s = 0; s < sums.size(); ++s) {
    const auto& sum = sums[s];
    if (sum.owner >= world)
      return wrong(s, "is for rank " + std::to_string(sum.owner) + ", who is not there");
    std::vector<bool> seen(world);
    for (const auto& term : sum.terms) {
      if (term.position >= world)
        return wrong(s, "has a block of rank " + std::to_string(term.position) + ", who is not there");
      if (seen[term.position])
        return wrong(s, "has two blocks of rank " + std::to_string(term.position) + ": at most one of each");
      seen[term.position] = true;
    }
    const auto senders = senders_of(sum);
    if (senders.empty()) return wrong(s, "needs a block of somebody else than its owner");
    steps[sum.owner] += 1;
    for (const auto sender : senders) steps[sender] += 2;
  }
  if (std::any_of(steps.begin(), steps.end(), [](std::uint32_t count) { return count > UINT16_MAX; }))
    return {ErrorCode::usage, "too many sums in one operation: split it"};
  return {};
}

std::uint64_t fingerprint(const CodedSums& sums) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  const auto take = [&](std::uint64_t value) {
    for (int byte = 0; byte < 8; ++byte, value >>= 8) hash = (hash ^ (value & 0xff)) * 0x100000001b3ull;
  };
  take(sums.size());
  for (const auto& sum : sums) {
    take(sum.owner);
    take(sum.terms.size());
    for (const auto& term : sum.terms) take(term.position), take(term.block), take(term.coefficient);
  }
  return hash;
}

std::vector<std::vector<std::uint8_t>> coefficients(const CodedSums& sums, std::uint32_t world) {
  std::vector<std::vector<std::uint8_t>> all;
  for (const auto& sum : sums) {
    auto& of_sum = all.emplace_back(world);
    for (const auto& term : sum.terms) of_sum[term.position] = term.coefficient;
  }
  return all;
}

Plan plan_coded_reduce(std::uint32_t position, std::uint32_t world, const CodedSums& sums) {
  Plan plan{position, world, {}, std::uint32_t(sums.size())};
  std::vector<std::uint16_t> counted(world);  // steps so far, by position
  for (std::uint32_t s = 0; s < sums.size(); ++s) {
    const auto& terms = sums[s].terms;
    Way way{s, sums[s].owner, terms.size() == 1 && terms[0].coefficient == 1, senders_of(sums[s])};
    for (std::size_t i = 0; i < way.senders.size(); ++i) {
      auto& count = counted[way.senders[i]];
      way.steps.push_back(count);
      count = std::uint16_t(count + (i == 0 ? 2 : 1));
    }
    way.steps.push_back(counted[way.owner]++);
    const auto place = std::size_t(std::ranges::find(way.senders, position) - way.senders.begin());
    if (position == way.owner)
      add_reduce(plan, way, way.senders.size());
    else if (place == 0)
      add_first(plan, way);
    else if (place < way.senders.size())
      add_reduce(plan, way, place);
  }
  return plan;
}

}  // namespace pccl
