#include <arpa/inet.h>

#include "check.hpp"
#include "runtime/strangers.hpp"

using namespace pccl;

namespace {

net::SocketAddress from(const std::string& host, std::uint16_t port) {
  auto found = net::resolve({host, port}, net::Purpose::connect);
  REQUIRE(found && !found->empty());
  return found->front();
}

int token[4096];

}  // namespace

TEST(one_address_does_not_take_all_places) {
  Strangers strangers;
  std::size_t came = 0;
  while (strangers.refuses(from("10.0.0.1", std::uint16_t(1000 + came))).empty()) {
    strangers.came(&token[came], from("10.0.0.1", std::uint16_t(1000 + came)));
    REQUIRE(++came < 4000);
  }
  CHECK_EQ(came, limits::strangers_per_address_max);
  CHECK_EQ(strangers.refuses(from("10.0.0.1", 1)),
           "turned away, as " + std::to_string(came) +
               " connections from its address have not said yet who they are");
  CHECK_EQ(strangers.refuses(from("::ffff:10.0.0.1", 1)), strangers.refuses(from("10.0.0.1", 1)));
  CHECK_EQ(strangers.refuses(from("10.0.0.2", 1)), "");
  strangers.left(&token[3]);
  strangers.left(&token[3]);
  CHECK_EQ(strangers.refuses(from("10.0.0.1", 1)), "");
  CHECK_EQ(strangers.count(), came - 1);
}

TEST(all_addresses_of_one_network_count_as_one_in_ipv6) {
  Strangers strangers;
  for (std::size_t i = 0; i < limits::strangers_per_address_max; ++i)
    strangers.came(&token[i], from("2001:db8::" + std::to_string(i % 9 + 1), 1));
  CHECK(!strangers.refuses(from("2001:db8::77", 1)).empty());
  CHECK_EQ(strangers.refuses(from("2001:db8:0:1::77", 1)), "");
}

TEST(all_places_are_taken) {
  Strangers strangers;
  for (std::size_t i = 0; i < limits::strangers_max; ++i)
    strangers.came(&token[i], from("10.0." + std::to_string(i / 100) + "." + std::to_string(i % 100), 1));
  CHECK_EQ(strangers.refuses(from("192.168.0.1", 1)), "turned away, as " +
                                                          std::to_string(limits::strangers_max) +
                                                          " connections have not said yet who they are");
  for (std::size_t i = 0; i < limits::strangers_max; ++i) strangers.left(&token[i]);
  CHECK_EQ(strangers.count(), 0u);
  CHECK_EQ(strangers.refuses(from("192.168.0.1", 1)), "");
}
