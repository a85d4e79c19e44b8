// Whom an operation waits for, and why: what its peers say of themselves and of their links is compared.
// Pure; the master asks when callers wait.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "wire/values.hpp"

namespace pccl {

// One of those whom the operation concerns, as the master knows it.
struct Witness {
  PeerId peer = no_peer;
  Duration silent = 0;              // nothing was heard of it for so long
  bool came = false;                // to the call: it said so
  bool done = false;                // it has the result
  std::optional<Call> elsewhere{};  // a call that it waits in instead
  std::vector<LinkState> links{};   // of the operation, as it last said
};

// The worst first; nothing where all are there and no link stands out: the operation is merely long.
// `silent_max`: whoever is silent for so long is stopped, or cut off.
std::vector<Hindrance> find_hindrances(const std::vector<Witness>& all, Duration silent_max);

// Behind "peer 3: "; for people.
std::string in_words(const Hindrance& hindrance);

// Whatever they measured.
bool alike(const Hindrance& a, const Hindrance& b);
bool alike(const std::vector<Hindrance>& a, const std::vector<Hindrance>& b);

}  // namespace pccl
