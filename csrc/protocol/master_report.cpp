// The master's run, copied for people.
#include <algorithm>

#include "protocol/master.hpp"

namespace pccl {

void Master::on(ConnectionId, PeerId peer, const Figures& m, Instant) { peers_.at(peer).figures = m.all; }

RunReport Master::report(Instant now) const {
  RunReport found;
  found.run = run_;
  found.view = view_.id;
  found.boundaries = view_.boundaries;
  found.waiting = waiting();
  constexpr const char* phases[] = {"serving", "listening", "suspended"};
  found.phase = phases[std::size_t(phase_)];
  found.door = door_said_;
  found.tally = tally_;
  for (const auto& m : view_.members) found.members.push_back(report_of(m, now));
  for (const auto& [group, peers] : index_.groups()) found.rings[group] = ring_of(group);
  report_links(found);
  report_operations(found, now);
  for (const auto& f : failures_.all())
    found.failures.insert(found.failures.begin(), {f.kind, now - f.at, f.text});
  return found;
}

MemberReport Master::report_of(const Member& m, Instant now) const {
  MemberReport one{m, {}, 0, 0, false, {}, std::nullopt};
  const auto it = peers_.find(m.peer);
  if (it == peers_.end()) return one;
  const auto& state = it->second;
  one.host_name = state.join.host;
  one.figures = state.figures;
  one.process = state.join.process;
  one.silent = now - state.heard;
  one.connected = state.connection != no_connection;
  if (state.boundary)
    one.waits_in = Call::update_topology;
  else if (state.waiting && !state.waiting->calls.empty())
    one.waits_in = state.waiting->calls.front().call;
  return one;
}

void Master::report_links(RunReport& report) const {
  for (const auto& m : view_.members)
    for (const auto& entry : wiring_.links().row(m.peer)) {
      if (report.links.size() == RunReport::links_shown_max) return;
      report.links.push_back({m.peer, entry.to, entry.link});
    }
}

void Master::report_operations(RunReport& report, Instant now) const {
  report.operations_open = operations_.size();
  for (const auto& [key, operation] : operations_) {
    if (report.operations.size() == RunReport::operations_shown_max) return;
    OperationReport one;
    one.key = key;
    if (operation.called) one.call = operation.called->second;
    const auto heard = std::min(operation.first_heard, operation.asked_since);
    one.age = heard == never ? 0 : now - heard;
    one.done = operation.done.count();
    one.voters = operation.voters;
    if (operation.absent)
      for (const auto peer : *operation.absent)
        if (one.absent.size() < limits::peers_named_max) one.absent.push_back(peer);
    one.hindrances = operation.hindrances;
    report.operations.push_back(std::move(one));
  }
}

}  // namespace pccl
