#include "erasure/placement.hpp"

#include <algorithm>
#include <map>
#include <numeric>

#include "erasure/code.hpp"

namespace pccl::erasure {

std::vector<std::vector<std::uint32_t>> code_groups(std::span<const std::uint32_t> domains,
                                                    std::uint32_t size) {
  if (domains.empty() || size == 0) return {};
  std::map<std::uint32_t, std::size_t> members;
  for (const std::uint32_t domain : domains) ++members[domain];
  std::vector<std::uint32_t> order(domains.size());
  std::iota(order.begin(), order.end(), 0u);
  // The largest domains first, each in one run; stable, so that equal views give equal groups everywhere.
  std::ranges::stable_sort(order, [&](std::uint32_t a, std::uint32_t b) {
    const auto many_a = members[domains[a]], many_b = members[domains[b]];
    return many_a != many_b ? many_a > many_b : domains[a] < domains[b];
  });
  const std::size_t needed = (domains.size() + blocks_max - 1) / blocks_max;
  const std::size_t count = std::max({domains.size() / size, needed, std::size_t{1}});
  std::vector<std::vector<std::uint32_t>> groups(count);
  // Dealt like cards: a run of d keepers gives each group d / count of them, rounded up or down.
  for (std::size_t i = 0; i < order.size(); ++i) groups[i % count].push_back(order[i]);
  return groups;
}

}  // namespace pccl::erasure
