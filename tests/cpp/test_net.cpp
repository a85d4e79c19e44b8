// Addresses, sockets, congestion control, poller and waker, against the kernel's loopback.
#include <fcntl.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <array>
#include <thread>

#include "check.hpp"
#include "net/address.hpp"
#include "net/poller.hpp"
#include "net/socket.hpp"

namespace pccl::net {
namespace {

SocketAddress loopback(std::uint16_t port = 0) {
  auto found = resolve({"127.0.0.1", port}, Purpose::connect);
  REQUIRE(found);
  return found->front();
}

struct Connected {
  Socket dialler, acceptor;
};

Connected connected_pair(const SocketOptions& options = {}) {
  auto listener = listen_on(loopback(), 16, options);
  REQUIRE(listener);
  auto dialled = start_connect(local_address(listener->fd()), options);
  REQUIRE(dialled);
  auto poller = Poller::create();
  REQUIRE(poller);
  REQUIRE(!poller->add(listener->fd(), 1, {true, false}));
  REQUIRE(!poller->wait(5 * second).empty());
  auto accepted = accept_from(*listener, options);
  REQUIRE(accepted && accepted->has_value());
  return {std::move(*dialled), std::move((*accepted)->socket)};
}

int option(const Socket& socket, int level, int name) {
  int value = -1;
  socklen_t bytes = sizeof value;
  return ::getsockopt(socket.fd(), level, name, &value, &bytes) == 0 ? value : -1;
}

TEST(addresses_are_read_and_written) {
  const auto good = [](std::string_view text, std::string_view host, int port) {
    const auto address = parse_address(text);
    REQUIRE(address);
    CHECK_EQ(address.value().host, host);
    CHECK_EQ(address.value().port, port);
    CHECK_EQ(text_of(address.value()), text);
  };
  good("localhost:5000", "localhost", 5000);
  good("10.0.0.1:1", "10.0.0.1", 1);
  good("[::1]:65535", "::1", 65535);
  good("[fe80::1%eth0]:7", "fe80::1%eth0", 7);
  good(":0", "", 0);
  for (const char* text : {"", "host", "host:", "host:65536", "host:-1", "host:5x", "::1", "::1:5000",
                           "[::1]", "[::1", "[::1]5000", "a b:5", "http://x:80", "[[::1]]:5", ":"}) {
    const auto address = parse_address(text);
    CHECK(!address);
    if (!address) CHECK_EQ(address.error().code, ErrorCode::usage);
  }
  CHECK(!parse_address(std::string(300, 'x') + ":1"));
  CHECK_EQ(parse_address("[::1]", 9).value().port, 9);
  CHECK_EQ(parse_address("host", 9).value().port, 9);
  CHECK_EQ(parse_address("host:8", 9).value().port, 8);
}

TEST(names_become_addresses) {
  CHECK_EQ(loopback(80).text(), "127.0.0.1:80");
  CHECK(loopback().is_loopback() && !loopback().is_any());
  const auto v6 = resolve({"::1", 81}, Purpose::connect);
  REQUIRE(v6);
  CHECK_EQ(v6.value().front().text(), "[::1]:81");
  CHECK(v6.value().front().is_loopback());
  const auto mapped = resolve({"::ffff:127.0.0.1", 82}, Purpose::connect);
  REQUIRE(mapped);
  CHECK_EQ(mapped.value().front().text(), "127.0.0.1:82");
  CHECK(mapped.value().front().is_loopback() && mapped.value().front().same_host(loopback()));
  const auto any = resolve({"", 83}, Purpose::listen);
  REQUIRE(any);
  CHECK(std::ranges::all_of(any.value(), [](const auto& a) { return a.is_any() && a.port() == 83; }));
  const auto here = resolve({"", 84}, Purpose::connect);
  REQUIRE(here);
  CHECK(std::ranges::all_of(here.value(), [](const auto& a) { return a.is_loopback(); }));
  const auto nobody = resolve({"no-such-host.invalid", 1}, Purpose::connect);
  REQUIRE(!nobody);
  CHECK_EQ(nobody.error().code, ErrorCode::connect);
  CHECK(nobody.error().text.find("no-such-host.invalid") != std::string::npos);
  for (const auto& address : interface_addresses())
    CHECK(!address.is_loopback() && !address.is_any() && !address.is_link_local());
}

TEST(a_wildcard_serves_its_own_family) {
  const auto address = [](const char* host) { return resolve({host, 85}, Purpose::connect)->front(); };
  const std::vector here = {address("192.0.2.1"), address("2001:db8::1")};
  CHECK_EQ(served_by(address("0.0.0.0"), here).size(), std::size_t{1});
  CHECK_EQ(served_by(address("0.0.0.0"), here)[0].host(), "192.0.2.1");
  CHECK_EQ(served_by(address("::"), here).size(), std::size_t{2});
}

TEST(sockets_connect_with_their_options) {
  SocketOptions options;
  options.unacked_max = 1500 * millisecond;
  const auto pair = connected_pair(options);
  CHECK_EQ(connect_result(pair.dialler), 0);
  CHECK_EQ(remote_address(pair.dialler.fd()).text(), local_address(pair.acceptor.fd()).text());
  CHECK_EQ(remote_address(pair.acceptor.fd()).text(), local_address(pair.dialler.fd()).text());
  for (const Socket* socket : {&pair.dialler, &pair.acceptor}) {
    CHECK_EQ(option(*socket, IPPROTO_TCP, TCP_NODELAY), 1);
    CHECK_EQ(option(*socket, IPPROTO_TCP, TCP_USER_TIMEOUT), 1500);
    CHECK_EQ(option(*socket, SOL_SOCKET, SO_KEEPALIVE), 1);
    CHECK_EQ(::fcntl(socket->fd(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_EQ(::fcntl(socket->fd(), F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    CHECK(path_of(*socket).same_host);
    tcp_info info{};
    socklen_t bytes = sizeof info;  // an emulator of another machine gives the first four
    if (::getsockopt(socket->fd(), IPPROTO_TCP, TCP_INFO, &info, &bytes) == 0 && bytes > sizeof(int))
      CHECK(path_of(*socket).rtt < second);
  }
}

TEST(failures_are_values_that_name_the_address) {
  auto listener = listen_on(loopback(), 16);
  REQUIRE(listener);
  const auto address = local_address(listener->fd());
  const auto second_one = listen_on(address, 16);
  REQUIRE(!second_one);
  CHECK(second_one.error().text.find(address.text()) != std::string::npos);
  auto none = accept_from(*listener);
  REQUIRE(none);
  CHECK(!none->has_value());
  listener->close();
  auto refused = start_connect(address);
  REQUIRE(refused);
  auto poller = Poller::create();
  REQUIRE(poller && !poller->add(refused->fd(), 7, {false, true}));
  const auto events = poller->wait(5 * second);
  REQUIRE(events.size() == 1);
  CHECK(events[0].token == 7 && events[0].writable && events[0].readable);
  CHECK_EQ(connect_result(*refused), ECONNREFUSED);
}

TEST(one_wildcard_serves_both_families) {
  const auto any = resolve({"", 0}, Purpose::listen);
  REQUIRE(any);
  auto listener = listen_on(any.value().front(), 16);
  if (!listener) return;  // a kernel without IPv6 lists it and cannot open it
  auto address = loopback(local_address(listener->fd()).port());
  auto dialled = start_connect(address);
  REQUIRE(dialled);
  auto poller = Poller::create();
  REQUIRE(poller && !poller->add(listener->fd(), 1, {true, false}));
  REQUIRE(!poller->wait(5 * second).empty());
  auto accepted = accept_from(*listener);
  REQUIRE(accepted && accepted->has_value());
  CHECK_EQ((*accepted)->from.host(), "127.0.0.1");
}

TEST(congestion_control_that_the_kernel_lacks_is_named) {
  for (const auto* choice : {"auto", "system", "reno"}) CHECK(!check_congestion(choice));
  for (const auto* choice : {"no-such-one", "", "a name that is far too long for the kernel"}) {
    const auto error = check_congestion(choice);
    CHECK_EQ(error.code, ErrorCode::usage);
    CHECK(error.text.find("reno") != std::string::npos);  // every kernel has it
  }
}

TEST(congestion_control_falls_back_silently) {
  const auto pair = connected_pair();
  const auto chosen = congestion_of(pair.dialler);
  CHECK(chosen == "cubic" || chosen == "reno");  // this host: never bbr
  CHECK_EQ(congestion_of(pair.acceptor), chosen);
  set_congestion(pair.dialler, "no such algorithm", {});
  CHECK_EQ(congestion_of(pair.dialler), chosen);
  set_congestion(pair.dialler, "system", {});
  CHECK_EQ(congestion_of(pair.dialler), chosen);
  set_congestion(pair.dialler, "reno", {});
  CHECK_EQ(congestion_of(pair.dialler), "reno");  // every kernel has it
  const Path near{false, 100 * microsecond};
  set_congestion(pair.dialler, "auto", near);
  CHECK_EQ(congestion_of(pair.dialler), chosen);
  const Path far{false, 80 * millisecond};
  set_congestion(pair.dialler, "auto", far);
  const auto far_choice = congestion_of(pair.dialler);
  CHECK(far_choice == "bbr" || far_choice == chosen);
}

TEST(the_poller_tells_what_was_asked_for) {
  const auto pair = connected_pair();
  auto poller = Poller::create();
  REQUIRE(poller);
  const int fd = pair.acceptor.fd();
  REQUIRE(!poller->add(fd, 42, {true, false}));
  CHECK(poller->add(fd, 43, {true, false}));  // twice: an error, no crash
  CHECK(poller->wait(0).empty());
  REQUIRE(::send(pair.dialler.fd(), "x", 1, MSG_NOSIGNAL) == 1);
  auto events = poller->wait(5 * second);
  REQUIRE(events.size() == 1);
  CHECK(events[0].token == 42 && events[0].readable && !events[0].writable);
  REQUIRE(!poller->modify(fd, 44, {false, true}));
  events = poller->wait(5 * second);
  REQUIRE(events.size() == 1);
  CHECK(events[0].token == 44 && !events[0].readable && events[0].writable);
  poller->remove(fd);
  const auto before = monotonic_now();
  CHECK(poller->wait(3 * millisecond).empty());
  CHECK(monotonic_now() - before >= 2 * millisecond);
}

TEST(the_waker_wakes_once_per_drain) {
  auto poller = Poller::create();
  auto waker = Waker::create();
  REQUIRE(poller && waker && !poller->add(waker->fd(), 1, {true, false}));
  for (int round = 0; round < 100; ++round) {
    std::thread other([&] {
      waker->signal();
      waker->signal();
    });
    CHECK_EQ(poller->wait(5 * second).size(), 1);
    other.join();
    waker->drain();
    CHECK(poller->wait(0).empty());
  }
}

// No signal is lost: whatever was published before signal() is seen after the drain() that follows.
TEST(the_waker_loses_nothing) {
  auto poller = Poller::create();
  auto waker = Waker::create();
  REQUIRE(poller && waker && !poller->add(waker->fd(), 1, {true, false}));
  constexpr int rounds = 20'000;
  std::atomic<int> published{0};
  std::thread other([&] {
    for (int i = 0; i < rounds; ++i) {
      published.fetch_add(1);
      waker->signal();
    }
  });
  int seen = 0;
  while (seen < rounds && !poller->wait(5 * second).empty()) {
    waker->drain();
    seen = published.load();
  }
  other.join();
  CHECK_EQ(seen, rounds);
}

}  // namespace
}  // namespace pccl::net
