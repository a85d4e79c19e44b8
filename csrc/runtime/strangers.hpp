// Connections that have not said who they are, by where they come from: no address takes all the places, so
// that others still get in. Owned by the I/O thread.
#pragma once
#include <netinet/in.h>

#include <map>
#include <string>
#include <unordered_map>

#include "base/limits.hpp"
#include "net/address.hpp"

namespace pccl {

class Strangers {
 public:
  // Why it cannot come in; empty: it can.
  std::string refuses(const net::SocketAddress& from) const {
    const auto there = by_place_.find(place_of(from));
    if (there != by_place_.end() && there->second >= limits::strangers_per_address_max)
      return "turned away, as " + std::to_string(there->second) +
             " connections from its address have not said yet who they are";
    if (connections_.size() >= limits::strangers_max)
      return "turned away, as " + std::to_string(connections_.size()) +
             " connections have not said yet who they are";
    return {};
  }
  void came(const void* connection, const net::SocketAddress& from) {
    const auto place = place_of(from);
    if (connections_.emplace(connection, place).second) ++by_place_[place];
  }
  // It has said who it is, or is gone. Of others: nothing.
  void left(const void* connection) {
    const auto known = connections_.extract(connection);
    if (known.empty()) return;
    const auto there = by_place_.find(known.mapped());
    if (--there->second == 0) by_place_.erase(there);
  }
  std::size_t count() const { return connections_.size(); }

 private:
  // Who has an address of IPv6 has 2^64 of them.
  static std::string place_of(const net::SocketAddress& from) {
    const auto* bytes = reinterpret_cast<const char*>(from.data());
    if (from.family() == AF_INET) return {bytes + offsetof(sockaddr_in, sin_addr), sizeof(in_addr)};
    if (from.family() != AF_INET6) return {};
    const auto* address = bytes + offsetof(sockaddr_in6, sin6_addr);
    const bool mapped = std::string(address, 12) == std::string(10, '\0') + "\xff\xff";
    return mapped ? std::string(address + 12, 4) : std::string(address, 8);
  }

  std::unordered_map<const void*, std::string> connections_;
  std::map<std::string, std::size_t> by_place_;
};

}  // namespace pccl
