// Addresses: text that people write ("host:port"), and what the kernel takes. resolve() may block for
// seconds: it belongs on a user's or a helper thread, never on one that serves sockets.
#pragma once
#include <netinet/in.h>
#include <sys/socket.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "wire/frame.hpp"  // Address

namespace pccl::net {

class SocketAddress {
 public:
  SocketAddress() = default;
  SocketAddress(const sockaddr* address, socklen_t bytes);

  const sockaddr* data() const { return reinterpret_cast<const sockaddr*>(&storage_); }
  socklen_t size() const { return bytes_; }
  int family() const { return storage_.ss_family; }
  std::uint16_t port() const;
  void set_port(std::uint16_t port);
  bool is_loopback() const;  // IPv4 127/8, ::1, and 127/8 written as IPv6
  bool is_any() const;
  bool is_link_local() const;  // needs an interface's name to be reached: useless to other hosts
  bool same_host(const SocketAddress& other) const;  // equal but for the port
  std::string host() const;                          // numeric, without brackets
  std::string text() const;                          // "10.0.0.1:5000", "[::1]:5000"
  Address address() const { return {host(), port()}; }

 private:
  sockaddr_storage storage_{};
  socklen_t bytes_ = 0;
};

// "host:port", "[v6]:port", ":port" (every interface, or this host); "host" alone only with a default port.
Result<Address> parse_address(std::string_view text, std::optional<std::uint16_t> default_port = {});
std::string text_of(const Address& address);
bool is_number(const std::string& host);  // no name: resolve() answers at once

enum class Purpose : std::uint8_t { connect, listen };
// All that the name stands for, best first. An empty host: this host (connect) or every interface (listen).
Result<std::vector<SocketAddress>> resolve(const Address& address, Purpose purpose);

// Where other hosts may reach this one: running interfaces, no loopback, no link-local; IPv4 before IPv6.
std::vector<SocketAddress> interface_addresses();
// Those that a listener on this wildcard serves: the IPv4 one has no IPv6, the IPv6 one has both.
std::vector<SocketAddress> served_by(const SocketAddress& wildcard, std::vector<SocketAddress> addresses);

// Of a socket; empty (family 0) when it has none. The local address of a connected socket is the one that its
// remote side reaches this host by.
SocketAddress local_address(int fd);
SocketAddress remote_address(int fd);

}  // namespace pccl::net
