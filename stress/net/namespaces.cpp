#include "namespaces.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>

namespace wan {
namespace {

// A burst of every stream of a peer waits here between two turns of this process, not in the model's queue.
constexpr int device_packets_max = 20'000;

Missing missing(const std::string& what) { return {what + ": " + std::strerror(errno)}; }

ifreq request_for(const char* name) {
  ifreq request{};
  std::strncpy(request.ifr_name, name, sizeof request.ifr_name - 1);
  return request;
}

bool set_address(int any_socket, ifreq request, const std::string& address, unsigned long what) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  ::inet_pton(AF_INET, address.c_str(), &in.sin_addr);
  std::memcpy(&request.ifr_addr, &in, sizeof in);
  return ::ioctl(any_socket, what, &request) == 0;
}

bool bring_up(int any_socket, ifreq request) {
  if (::ioctl(any_socket, SIOCGIFFLAGS, &request) != 0) return false;
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  return ::ioctl(any_socket, SIOCSIFFLAGS, &request) == 0;
}

bool set_number(int any_socket, ifreq request, int value, unsigned long what) {
  request.ifr_ifru.ifru_ivalue = value;
  return ::ioctl(any_socket, what, &request) == 0;
}

bool configure(const std::string& address, int mtu) {
  const int any_socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (any_socket < 0) return false;
  const ifreq device = request_for("wan0");
  const bool done =
      bring_up(any_socket, request_for("lo")) && set_number(any_socket, device, mtu, SIOCSIFMTU) &&
      set_number(any_socket, device, device_packets_max, SIOCSIFTXQLEN) &&
      set_address(any_socket, device, address, SIOCSIFADDR) &&
      set_address(any_socket, device, "255.255.255.0", SIOCSIFNETMASK) && bring_up(any_socket, device);
  const int reason = errno;
  ::close(any_socket);
  errno = reason;
  return done;
}

// In the namespace where the process is now.
std::variant<Namespace, Missing> equip(std::size_t index, int mtu) {
  Namespace made{-1, -1, "10.77.0." + std::to_string(index + 1)};
  made.descriptor = ::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  if (made.descriptor < 0) return missing("/proc/self/ns/net");
  made.device = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (made.device < 0) return missing("/dev/net/tun");
  ifreq request = request_for("wan0");
  request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(made.device, TUNSETIFF, &request) != 0) return missing("a TUN device");
  if (::ioctl(made.device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) != 0)
    return missing("a TUN device that cuts and joins packets");
  if (!configure(made.address, mtu)) return missing("the address of a TUN device");
  return made;
}

}  // namespace

std::variant<std::vector<Namespace>, Missing> make_namespaces(std::size_t count, int mtu) {
  const int home = ::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  if (home < 0) return missing("/proc/self/ns/net");
  std::vector<Namespace> all;
  std::optional<Missing> fault;
  while (!fault && all.size() < count) {
    if (::unshare(CLONE_NEWNET) != 0) {
      fault = missing("a network namespace (it takes root)");
      break;
    }
    const std::variant<Namespace, Missing> made = equip(all.size(), mtu);
    if (const auto* space = std::get_if<Namespace>(&made)) all.push_back(*space);
    if (const auto* why = std::get_if<Missing>(&made)) fault = *why;
  }
  if (::setns(home, CLONE_NEWNET) != 0 && !fault) fault = missing("the way back from a namespace");
  ::close(home);
  if (fault) return *fault;
  return all;
}

Missing run_inside(const char* path, char* const* command) {
  const int space = ::open(path, O_RDONLY | O_CLOEXEC);
  if (space < 0) return missing(path);
  if (::setns(space, CLONE_NEWNET) != 0) return missing(path);
  ::execvp(command[0], command);
  return missing(command[0]);
}

}  // namespace wan
