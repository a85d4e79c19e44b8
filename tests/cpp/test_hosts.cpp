// Which members of a view share a host: numbers by what the peers said when they joined.
#include "court.hpp"
#include "runtime/this_host.hpp"

namespace pccl::hostile {

namespace {
Join at_host(const std::string& island, const std::string& host) {
  auto join = join_of(island);
  join.host_id = host;
  join.min_islands = 4;
  return join;
}
}  // namespace

TEST(peers_of_one_host_have_one_number) {
  Court court;
  court.admit(1, at_host("a", "one"));
  court.admit(2, at_host("b", "two"));
  court.admit(3, at_host("c", ""));
  court.admit(4, at_host("d", "one"));
  std::vector<std::uint32_t> hosts;
  for (const auto& member : court.master.view().members) hosts.push_back(member.host);
  CHECK(hosts == (std::vector<std::uint32_t>{1, 2, 0, 1}));
}

TEST(this_host_says_the_same_every_time) {
  CHECK_EQ(this_host(), this_host());
  CHECK(this_host().empty() || this_host().size() == 32);
}

}  // namespace pccl::hostile
