// One of the runs that a master serves: a roster for each role that anybody has come with, and of each its
// protocol and its questions whether somebody still listens. Owned by the master's I/O thread.
#pragma once
#include <algorithm>
#include <map>
#include <memory>

#include "protocol/master.hpp"
#include "runtime/knocker.hpp"

namespace pccl {

// The peers of one role of a run.
struct Roster {
  Roster(const std::string& run_name, MasterConfig config, Hub& hub, const net::Secret& secret, Instant now)
      : run(run_name),
        role(config.role),
        master(std::move(config), now),
        knocker(hub, secret, [this](PeerId peer) { master.on_refused(peer, monotonic_now()); }) {}

  Instant next_deadline() const { return std::min(master.next_deadline(), knocker.next_deadline()); }
  void tick(Instant now) {
    if (now >= master.next_deadline()) master.tick(now);
    knocker.tick(now);
  }
  // What lines about it begin with.
  std::string label() const {
    const auto named = run.empty() ? "" : "run '" + run + "'";
    if (role == Role::trainer) return named.empty() ? "" : named + ": ";
    return named + (named.empty() ? "" : ", ") + name(role) + "s: ";
  }
  // What reports call it.
  std::string title() const { return role == Role::trainer ? run : run + "/" + name(role) + "s"; }
  // Nobody is in it, on the way out, or expected back.
  bool over() const { return connections == 0 && master.peers() == 0 && !master.listening(); }
  // By which a store knows it.
  std::string key() const {
    if (role == Role::trainer) return run;
    return std::string("\x1f").append(name(role)).append("s\x1f").append(run);
  }

  const std::string run;
  const Role role;
  Master master;
  Knocker knocker;
  std::size_t connections = 0;
  bool awaited = false;  // listens for those of its last view
  bool kept = false;     // the store may have a record of it
};

struct MasterRun {
  // Nobody of any role is.
  bool over() const {
    return std::all_of(rosters.begin(), rosters.end(),
                       [](const auto& roster) { return roster.second->over(); });
  }
  std::size_t peers() const {
    std::size_t all = 0;
    for (const auto& [role, roster] : rosters) all += roster->master.peers();
    return all;
  }

  // Of all roles but this one, the worst.
  Doubt doubt_of_others(Role role) const {
    auto worst = Doubt::none;
    for (const auto& [other, roster] : rosters)
      if (other != role && roster != nullptr) worst = std::max(worst, roster->master.doubt());
    return worst;
  }

  std::map<Role, std::unique_ptr<Roster>> rosters;
};

}  // namespace pccl
