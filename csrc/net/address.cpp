#include "net/address.hpp"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

namespace pccl::net {
namespace {

template <class T> T as(const sockaddr* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

bool is_v4_mapped(const in6_addr& address) { return IN6_IS_ADDR_V4MAPPED(&address) != 0; }

// The IPv4 address in host byte order, also where it is written as an IPv6 one.
std::optional<std::uint32_t> v4_of(const SocketAddress& address) {
  if (address.family() == AF_INET) return ntohl(as<sockaddr_in>(address.data()).sin_addr.s_addr);
  if (address.family() != AF_INET6) return std::nullopt;
  const auto v6 = as<sockaddr_in6>(address.data());
  if (!is_v4_mapped(v6.sin6_addr)) return std::nullopt;
  std::uint32_t v4 = 0;
  std::memcpy(&v4, v6.sin6_addr.s6_addr + 12, sizeof v4);
  return ntohl(v4);
}

Error bad_address(std::string_view text, const char* why) {
  std::string what = "\"";
  what.append(text.substr(0, limits::name_bytes_max)).append("\" is no address: ").append(why);
  return {ErrorCode::usage, what.append("; write host:port, or [IPv6]:port")};
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return port;
}

struct Split {
  std::string_view host, port;
  bool has_port = false;
};

// Nothing: colons where they cannot be.
std::optional<Split> split(std::string_view text) {
  if (text.starts_with('[')) {
    const auto close = text.find(']');
    if (close == std::string_view::npos) return std::nullopt;
    const auto rest = text.substr(close + 1);
    if (!rest.empty() && rest[0] != ':') return std::nullopt;
    return Split{text.substr(1, close - 1), rest.empty() ? rest : rest.substr(1), !rest.empty()};
  }
  const auto colon = text.find(':');
  if (colon == std::string_view::npos) return Split{text, {}, false};
  if (text.find(':', colon + 1) != std::string_view::npos) return std::nullopt;
  return Split{text.substr(0, colon), text.substr(colon + 1), true};
}

template <int call(int, sockaddr*, socklen_t*)> SocketAddress address_by(int fd) {
  sockaddr_storage storage{};
  socklen_t bytes = sizeof storage;
  auto* address = reinterpret_cast<sockaddr*>(&storage);
  if (call(fd, address, &bytes) != 0) return {};
  return {address, std::min<socklen_t>(bytes, sizeof storage)};
}

int name_of_peer(int fd, sockaddr* address, socklen_t* bytes) { return ::getpeername(fd, address, bytes); }
int name_of_socket(int fd, sockaddr* address, socklen_t* bytes) { return ::getsockname(fd, address, bytes); }

bool useful(const ifaddrs& interface) {
  if (interface.ifa_addr == nullptr) return false;
  const auto family = interface.ifa_addr->sa_family;
  if (family != AF_INET && family != AF_INET6) return false;
  constexpr unsigned needed = IFF_UP | IFF_RUNNING;
  return (interface.ifa_flags & needed) == needed && (interface.ifa_flags & IFF_LOOPBACK) == 0;
}

}  // namespace

SocketAddress::SocketAddress(const sockaddr* address, socklen_t bytes)
    : bytes_(std::min<socklen_t>(bytes, sizeof storage_)) {
  std::memcpy(&storage_, address, bytes_);
}

std::uint16_t SocketAddress::port() const {
  if (family() == AF_INET) return ntohs(as<sockaddr_in>(data()).sin_port);
  if (family() == AF_INET6) return ntohs(as<sockaddr_in6>(data()).sin6_port);
  return 0;
}

void SocketAddress::set_port(std::uint16_t port) {
  const auto value = htons(port);
  const auto offset =
      family() == AF_INET6 ? offsetof(sockaddr_in6, sin6_port) : offsetof(sockaddr_in, sin_port);
  if (family() == AF_INET || family() == AF_INET6)
    std::memcpy(reinterpret_cast<char*>(&storage_) + offset, &value, sizeof value);
}

bool SocketAddress::is_loopback() const {
  if (const auto v4 = v4_of(*this)) return *v4 >> 24 == 127;
  if (family() == AF_UNIX) return true;
  if (family() != AF_INET6) return false;
  const auto v6 = as<sockaddr_in6>(data());
  return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr) != 0;
}

bool SocketAddress::is_any() const {
  if (const auto v4 = v4_of(*this)) return *v4 == 0;
  if (family() != AF_INET6) return false;
  const auto v6 = as<sockaddr_in6>(data());
  return IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr) != 0;
}

bool SocketAddress::is_link_local() const {
  if (const auto v4 = v4_of(*this)) return *v4 >> 16 == 0xa9fe;  // 169.254/16
  if (family() != AF_INET6) return false;
  const auto v6 = as<sockaddr_in6>(data());
  return IN6_IS_ADDR_LINKLOCAL(&v6.sin6_addr) != 0;
}

bool SocketAddress::same_host(const SocketAddress& other) const {
  const auto a = v4_of(*this), b = v4_of(other);
  if (a || b) return a == b;
  if (family() != AF_INET6 || other.family() != AF_INET6) return false;
  const auto mine = as<sockaddr_in6>(data()), theirs = as<sockaddr_in6>(other.data());
  return std::memcmp(&mine.sin6_addr, &theirs.sin6_addr, sizeof mine.sin6_addr) == 0 &&
         mine.sin6_scope_id == theirs.sin6_scope_id;
}

std::string SocketAddress::host() const {
  if (const auto v4 = v4_of(*this)) {
    const in_addr address{htonl(*v4)};
    char text[INET_ADDRSTRLEN];
    return ::inet_ntop(AF_INET, &address, text, sizeof text) != nullptr ? text : "?";
  }
  char text[NI_MAXHOST];
  if (family() != AF_INET6) return family() == AF_UNIX ? "local" : "?";
  return ::getnameinfo(data(), size(), text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0 ? text : "?";
}

std::string SocketAddress::text() const {
  if (family() != AF_INET && family() != AF_INET6) return host();
  return text_of({host(), port()});
}

Result<Address> parse_address(std::string_view text, std::optional<std::uint16_t> default_port) {
  const auto parts = split(text);
  if (!parts) return bad_address(text, "its colons or brackets do not fit");
  if (parts->host.size() > limits::name_bytes_max) return bad_address(text, "the name is too long");
  const auto bad = [](char c) {
    return static_cast<unsigned char>(c) <= ' ' || c == '/' || c == '[' || c == ']';
  };
  if (std::ranges::any_of(parts->host, bad))
    return bad_address(text, "the host has a character that no name has");
  if (!parts->has_port) {
    if (!default_port || text.empty()) return bad_address(text, "the port is missing");
    return Address{std::string(parts->host), *default_port};
  }
  const auto port = parse_port(parts->port);
  if (!port) return bad_address(text, "the port is not a number up to 65535");
  return Address{std::string(parts->host), *port};
}

std::string text_of(const Address& address) {
  const bool v6 = address.host.find(':') != std::string::npos;
  return (v6 ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port);
}

bool is_number(const std::string& host) {
  in6_addr any{};
  const auto address = host.substr(0, host.find('%'));  // an interface's name may follow
  return inet_pton(AF_INET, host.c_str(), &any) == 1 || inet_pton(AF_INET6, address.c_str(), &any) == 1;
}

Result<std::vector<SocketAddress>> resolve(const Address& address, Purpose purpose) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (purpose == Purpose::listen ? AI_PASSIVE : 0);
  addrinfo* found = nullptr;
  const auto port = std::to_string(address.port);
  const char* host = address.host.empty() ? nullptr : address.host.c_str();
  if (const int status = ::getaddrinfo(host, port.c_str(), &hints, &found); status != 0) {
    const char* why = status == EAI_SYSTEM ? std::strerror(errno) : ::gai_strerror(status);
    return Error{ErrorCode::connect, "cannot resolve \"" + address.host + "\": " + why};
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  std::vector<SocketAddress> all;
  for (const auto* each = found; each != nullptr; each = each->ai_next)
    if (each->ai_family == AF_INET || each->ai_family == AF_INET6)
      all.emplace_back(each->ai_addr, each->ai_addrlen);
  if (all.empty()) return Error{ErrorCode::connect, "\"" + address.host + "\" has no IPv4 or IPv6 address"};
  // A listener on the IPv6 wildcard serves IPv4 too, so it comes first there.
  if (purpose == Purpose::listen && host == nullptr)
    std::ranges::stable_sort(all, std::ranges::greater{},
                             [](const auto& a) { return a.family() == AF_INET6; });
  return all;
}

std::vector<SocketAddress> interface_addresses() {
  ifaddrs* found = nullptr;
  if (::getifaddrs(&found) != 0) return {};
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(found, &::freeifaddrs);
  std::vector<SocketAddress> all;
  for (const auto* each = found; each != nullptr; each = each->ifa_next) {
    if (!useful(*each)) continue;
    const bool v6 = each->ifa_addr->sa_family == AF_INET6;
    const SocketAddress address(each->ifa_addr, v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in));
    if (!address.is_link_local() && !address.is_loopback()) all.push_back(address);
  }
  std::ranges::stable_sort(all, {}, [](const auto& address) { return address.family() == AF_INET6; });
  return all;
}

std::vector<SocketAddress> served_by(const SocketAddress& wildcard, std::vector<SocketAddress> addresses) {
  if (wildcard.family() == AF_INET)
    std::erase_if(addresses, [](const auto& address) { return address.family() != AF_INET; });
  return addresses;
}

SocketAddress local_address(int fd) { return address_by<name_of_socket>(fd); }
SocketAddress remote_address(int fd) { return address_by<name_of_peer>(fd); }

}  // namespace pccl::net
