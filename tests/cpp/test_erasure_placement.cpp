// Code groups and stripes: nobody twice in a stripe, as many parities as promised, domains spread out.

#include <algorithm>
#include <map>
#include <set>

#include "check.hpp"
#include "erasure/placement.hpp"
#include "kernels_reference.hpp"

using namespace pccl;
using namespace pccl::erasure;

TEST(each_stripe_has_each_keeper_once) {
  for (std::uint32_t n = 2; n <= 14; ++n) {
    for (std::uint32_t m = 1; m < n; ++m) {
      const Stripes stripes(n, m);
      std::map<std::uint32_t, std::set<std::uint32_t>> data, parities;  // by slot: blocks, and rows
      for (std::uint32_t stripe = 0; stripe < n; ++stripe) {
        std::set<std::uint32_t> holders;
        for (std::uint32_t block = 0; block < n; ++block) {
          const auto slot = stripes.slot_of(stripe, block);
          holders.insert(slot);
          CHECK_EQ(stripes.block_of(stripe, slot), block);
          CHECK_EQ(stripes.stripe_of(slot, block), stripe);
          (block < n - m ? data : parities)[slot].insert(block);
        }
        CHECK_EQ(holders.size(), n);
      }
      for (std::uint32_t slot = 0; slot < n; ++slot) {  // every own block once, m parities of different rows
        CHECK_EQ(data[slot].size(), n - m);
        CHECK_EQ(parities[slot].size(), m);
      }
    }
  }
}

TEST(groups_spread_domains_as_far_as_it_goes) {
  kernels_check::Random random{51};
  for (int i = 0; i < 500; ++i) {
    std::vector<std::uint32_t> domains(1 + random.below(60));
    const auto labels = 1 + random.below(domains.size() + 3);
    for (auto& domain : domains) domain = static_cast<std::uint32_t>(random.below(labels));
    const auto size = static_cast<std::uint32_t>(1 + random.below(12));
    const auto groups = code_groups(domains, size);
    std::map<std::uint32_t, std::size_t> members;
    for (const auto domain : domains) ++members[domain];
    std::set<std::uint32_t> seen;
    for (const auto& group : groups) {
      CHECK(group.size() >= std::min<std::size_t>(size, domains.size()));
      std::map<std::uint32_t, std::size_t> here;
      for (const auto keeper : group) {
        CHECK(seen.insert(keeper).second);
        ++here[domains[keeper]];
      }
      for (const auto& [domain, count] : here)
        CHECK(count <= (members[domain] + groups.size() - 1) / groups.size());
    }
    CHECK_EQ(seen.size(), domains.size());
    CHECK(groups == code_groups(domains, size));
  }
}

TEST(groups_of_many_stay_within_the_field) {
  const std::vector<std::uint32_t> domains(1000, 7);
  const auto groups = code_groups(domains, 900);
  CHECK(std::ranges::all_of(groups, [](const auto& group) { return group.size() <= 256; }));
  CHECK(code_groups({}, 4).empty());
}
