// One network namespace per peer, with a TUN device and an address. They have no names: descriptors of this
// process hold them, so nothing is left when it ends, however it does.
#pragma once
#include <string>
#include <variant>
#include <vector>

namespace wan {

struct Namespace {
  int descriptor;  // /proc/<pid>/fd/<descriptor> can be entered
  int device;      // the TUN device, non-blocking
  std::string address;
};

// What could not be had, and why: root, /dev/net/tun, namespaces.
struct Missing {
  std::string text;
};

inline constexpr std::size_t peers_max = 32;

// Leaves the process in the namespace where it was.
std::variant<std::vector<Namespace>, Missing> make_namespaces(std::size_t count, int mtu);

// Runs `command` in the namespace behind `path`; returns only where that failed, with the reason.
Missing run_inside(const char* path, char* const* command);

}  // namespace wan
