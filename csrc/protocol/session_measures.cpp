// What a session tells of the speed of its links: reports from operations, and answers to probes.
#include <algorithm>

#include "protocol/session.hpp"

namespace pccl {

void Session::note_links(const std::vector<MeasuredLink>& links, Instant now) {
  if (stage_ == Stage::gone) return;
  for (const auto& link : links) {
    if (link.to == me_ || (stage_ == Stage::member && view_.find(link.to) == nullptr)) continue;
    if (measured_.size() < limits::peers_named_max || measured_.contains(link.to)) measured_[link.to] = link;
  }
  if (stage_ == Stage::member && now >= report_at_) report_links(now);
}

// Bounded in number by note_links(), in time by whoever calls this: at most once in a while, and before a
// boundary, where it may decide about the next view.
void Session::report_links(Instant now) {
  if (measured_.empty() || stage_ != Stage::member || !master_up_) return;
  LinkReport report;
  for (const auto& [peer, link] : std::exchange(measured_, {}))
    if (view_.find(peer) != nullptr) report.links.push_back(link);
  report_at_ = now + timing_.link_report;
  if (!report.links.empty()) to_master(std::move(report));
}

// ---- probes ----

void Session::on(const Probe& m, Instant now) {
  if (stage_ != Stage::member || m.view != view_.id || boundary_.number == 0 || boundary_.given_up) return;
  if (view_.find(m.peer) == nullptr || m.peer == me_) return;
  probe_ = m;
  probe_->milliseconds = std::min(m.milliseconds, limits::probe_ms_max);
  probe_started_ = false;
  probe_by_ = now + timing_.redial;
  if (link_up(m.peer)) return start_probe();
  want_link(m.peer, now);
}

void Session::start_probe() {
  if (std::exchange(probe_started_, true)) return;
  emit(effect::Probe{probe_->peer, probe_->round, Duration{probe_->milliseconds} * millisecond});
}

void Session::probed(std::uint32_t round, const MeasuredLink& link) {
  if (!probe_ || probe_->round != round || probe_->peer != link.to) return;
  to_master(Probed{view_.id, round, link});
  probe_.reset();
}

// There is no link, and nobody could open one in time: that is an answer, too.
void Session::check_probe(Instant now) {
  if (!probe_ || probe_started_ || now < probe_by_) return;
  probed(probe_->round, {probe_->peer, 0, 0, Evidence::probe});
}

}  // namespace pccl
