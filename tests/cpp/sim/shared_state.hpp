// A process's shared states, one for each synchronization: what it holds, what it offers, and what it fetches
// from donors, entry by entry. Contents come in a few versions that share entries: so there are several
// donors, and mixtures are seen.
#pragma once
#include <array>
#include <map>
#include <set>

#include "protocol/session.hpp"
#include "sim/links.hpp"

namespace pccl::sim {

inline constexpr std::uint32_t entries = 3;
using Version = std::array<std::uint8_t, entries>;

// One entry on its way from a donor.
struct Fetch {
  Process *fetcher = nullptr, *donor = nullptr;
  LinkIndex link = 0;
  OpKey key;
  ViewId view;
  std::uint32_t entry = 0;
  std::uint8_t value = 0;
};

class SharedStates {
 public:
  explicit SharedStates(Process& process) : process_(process) {}

  void posted(const OpKey& key);
  void started(const OpKey& key, ViewId view);
  void elected(const StatePlan& plan);
  void on_link_up(PeerId peer);
  bool serve(const Fetch& fetch);      // at the donor
  void landed(const Fetch& fetch);     // at the fetcher
  void dropped(const OpKey& key);      // the attempt
  Version finished(const OpKey& key);  // what it holds in the end

 private:
  struct State {
    Version holds{};
    std::uint64_t revision = 0;
    bool torn = false;  // some entries of another version have come, others have not
    ViewId attempt;     // in which view
    Version wanted{};
    std::uint64_t wanted_revision = 0;
    std::map<std::uint32_t, PeerId> missing;  // entry -> the donor that was asked
  };
  void offer(const OpKey& key, ViewId view);
  void ask(const OpKey& key, const State& state, std::uint32_t entry, PeerId donor);
  void complete(const OpKey& key, ViewId view);

  Process& process_;
  std::map<OpKey, State> states_;
};

}  // namespace pccl::sim
