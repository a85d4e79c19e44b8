#include "runtime/this_host.hpp"

#include <fstream>

#include "base/sha256.hpp"

namespace pccl {

namespace {
constexpr std::size_t digits = 32;  // 128 bits of the digest
}

// Digested, so that a run's messages do not carry what the kernel says of the machine.
std::string this_host() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string boot;
  if (!(file >> boot)) return {};
  const std::string text = "pccl host " + boot;
  const auto digest = sha256({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  std::string hex;
  for (std::size_t i = 0; hex.size() < digits; ++i) {
    hex += "0123456789abcdef"[digest[i] >> 4];
    hex += "0123456789abcdef"[digest[i] & 15];
  }
  return hex;
}

}  // namespace pccl
