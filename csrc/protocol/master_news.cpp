// What those at the door wait for, in words: for them, and for the master's log.
#include <algorithm>

#include "protocol/master.hpp"

namespace pccl {

std::string some_of(const std::vector<std::string>& names) {
  std::string all;
  const auto told = std::min(names.size(), limits::names_told_max);
  for (std::size_t i = 0; i < told; ++i) {
    if (i > 0) all += i + 1 == names.size() ? " and " : ", ";
    all += names[i];
  }
  return names.size() == told ? all : all + " and " + std::to_string(names.size() - told) + " more";
}

// Of an island; empty: it is whole.
std::string Master::who_has_not_come(const std::string& name, const DoorIsland& island) const {
  std::vector<std::string> ranks;
  for (std::uint16_t rank = 0; rank < island.size; ++rank)
    if (!island.ranks.contains(rank)) ranks.push_back(std::to_string(rank));
  if (ranks.empty()) return {};
  const bool one = ranks.size() == 1;
  return (one ? "rank " : "ranks ") + some_of(ranks) + " of island '" + name + "' " + (one ? "has" : "have") +
         " not come";
}

std::string Master::before_the_run() const {
  std::vector<std::string> here, missing;
  std::uint32_t most = 1;
  for (const auto& [name, island] : door_) {
    most = std::max(most, island.min_islands);
    if (island.ready) here.push_back(name);
    if (!complete(island) && missing.size() < limits::names_told_max)
      missing.push_back(who_has_not_come(name, island));
  }
  std::string text;
  if (most > 1)
    text = std::to_string(here.size()) + " of " + std::to_string(most) + " islands are at the door" +
           (here.empty() ? "" : " (" + some_of(here) + ")");
  for (const auto& each : missing) text += (text.empty() ? "" : "; ") + each;
  return text.empty() ? "the links between the peers are being tried" : text;
}

std::string Master::news_for(const std::string& name, const DoorIsland& island) const {
  if (!complete(island)) return who_has_not_come(name, island);
  return island.ready ? "members let newcomers in at their next update_topology()"
                      : "its links to the members are being tried";
}

std::string Master::news_for_held(const Join& join) const {
  if (phase_ != Phase::serving) return "the restarted master waits for the peers of the run that was";
  const auto other = in_the_way(join);
  const auto it = peers_.find(other.value_or(no_peer));
  if (it == peers_.end()) return "it is about to be let in";
  const auto& holder = it->second.join;
  return "island '" + join.island + "' is " + (member(*other) ? "in the run" : "at the door") +
         " already (process " + std::to_string(holder.process) + " on " +
         (holder.host.empty() ? "some host" : holder.host) + "); this one comes in when that one is gone";
}

// To all at once, soon after anything has changed and with each pulse.
void Master::tell_door(Instant now) {
  door_news_at_ = never;
  const auto common = view_.members.empty() && !door_.empty() ? before_the_run() : std::string();
  for (const auto& [name, island] : door_) {
    const Pulse pulse{waiting(), common.empty() ? news_for(name, island) : common};
    for (const auto& [rank, peer] : island.ranks) send(peer, pulse);
  }
  for (const auto& [c, join] : early_joins_) send_to(c, Pulse{waiting(), news_for_held(join)});
  note_door(now);
}

std::string Master::door_line() const {
  if (phase_ != Phase::serving) return {};
  std::string text;
  const auto add = [&](const std::string& what) { text += (text.empty() ? "" : "; ") + what; };
  if (view_.members.empty() && !door_.empty()) {
    add("the run cannot begin yet: " + before_the_run());
  } else {
    std::vector<std::string> ready;
    for (const auto& [name, island] : door_)
      if (island.ready) ready.push_back(name);
    if (!ready.empty())
      add((ready.size() == 1 ? "island " : "islands ") + some_of(ready) +
          (ready.size() == 1 ? " waits" : " wait") + " at the door for the members' next update_topology()");
    std::size_t told = 0;
    for (const auto& [name, island] : door_)
      if (!complete(island) && ++told <= limits::names_told_max) add(who_has_not_come(name, island));
  }
  if (!early_joins_.empty()) add(news_for_held(early_joins_.begin()->second));
  return text;
}

// One line for each change, and never two within a second.
void Master::note_door(Instant now) {
  if (door_.empty() && early_joins_.empty()) {
    door_since_ = never;
    return door_said_.clear();
  }
  if (door_since_ == never) door_since_ = now;
  const auto line = door_line();
  if (line.empty() || line == door_said_) return;
  if (const auto at = std::max(door_since_ + timing_.waiting_notice, door_quiet_until_); now < at) {
    door_news_at_ = std::min(door_news_at_, at);
    return;
  }
  door_said_ = line;
  door_quiet_until_ = now + timing_.waiting_notice;
  emit(master_effect::Notice{line});
}

}  // namespace pccl
