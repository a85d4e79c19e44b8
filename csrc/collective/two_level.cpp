// All-reduce in two levels. Every position can tell every other's steps from the hosts alone.
#include <algorithm>

#include "collective/plan.hpp"
#include "collective/positions.hpp"

namespace pccl {

namespace {

// Who does what for which segment. Each host owns as many segments as the fullest one has peers; in every
// host one proxy speaks for a segment, and the owner is the proxy in its own host.
class Hosts {
 public:
  explicit Hosts(const std::vector<std::uint32_t>& host_of) : host_(host_of.size()) {
    std::vector<std::uint32_t> names;
    for (std::uint32_t p = 0; p < host_of.size(); ++p) {
      const auto at = std::find(names.begin(), names.end(), host_of[p]);
      host_[p] = std::uint32_t(at - names.begin());
      if (at == names.end()) names.push_back(host_of[p]), peers_.emplace_back();
      peers_[host_[p]].push_back(p);
      fullest_ = std::max(fullest_, peers_[host_[p]].size());
    }
  }

  std::uint32_t world() const { return std::uint32_t(host_.size()); }
  std::uint32_t hosts() const { return std::uint32_t(peers_.size()); }
  std::uint32_t segments() const { return std::uint32_t(peers_.size() * fullest_); }
  std::uint32_t host(std::uint32_t position) const { return host_[position]; }
  const std::vector<std::uint32_t>& on(std::uint32_t host) const { return peers_[host]; }
  std::uint32_t home(std::uint32_t segment) const { return segment / std::uint32_t(fullest_); }
  std::uint32_t proxy(std::uint32_t host, std::uint32_t segment) const {
    return peers_[host][segment % fullest_ % peers_[host].size()];
  }
  std::uint32_t owner(std::uint32_t segment) const { return proxy(home(segment), segment); }
  std::uint32_t rank(std::uint32_t position) const {
    const auto& peers = peers_[host_[position]];
    return std::uint32_t(std::find(peers.begin(), peers.end(), position) - peers.begin());
  }
  bool is_proxy(std::uint32_t position, std::uint32_t segment) const {
    return proxy(host_[position], segment) == position;
  }

 private:
  std::vector<std::uint32_t> host_;                // by position
  std::vector<std::vector<std::uint32_t>> peers_;  // by host, in the order of positions
  std::size_t fullest_ = 0;
};

// The steps of one position, segment by segment. Who is no proxy: 0 own, 1 the result. A proxy: what the
// others on its host have, their sum; then the owner: the other hosts' sums, the result; another proxy: the
// result. Where a proxy is alone its own input is the host's sum.
class Numbering {
 public:
  Numbering(const Hosts& hosts, std::uint32_t position)
      : hosts_(hosts), position_(position), inside_(hosts.on(hosts.host(position)).size()) {}

  std::uint16_t first(std::uint32_t segment) const {
    std::size_t steps = 0;
    for (std::uint32_t s = 0; s < segment; ++s) steps += count(s);
    return std::uint16_t(steps);
  }
  std::uint16_t all() const { return first(hosts_.segments()); }
  std::uint16_t collect_inside(std::uint32_t segment, std::uint32_t from) const {
    return std::uint16_t(first(segment) + place(hosts_.rank(from), hosts_.rank(position_)));
  }
  std::uint16_t sum_inside(std::uint32_t segment) const { return std::uint16_t(after(segment) - 1); }
  std::uint16_t collect_across(std::uint32_t segment, std::uint32_t host) const {
    return std::uint16_t(after(segment) + place(host, hosts_.home(segment)));
  }
  std::uint16_t result(std::uint32_t segment) const {
    if (hosts_.owner(segment) == position_) return std::uint16_t(after(segment) + hosts_.hosts() - 1);
    return std::uint16_t(hosts_.is_proxy(position_, segment) && inside_ > 1 ? after(segment)
                                                                            : first(segment) + 1);
  }

 private:
  // The first step behind the sum inside the host; an owner that is alone there has none.
  std::uint16_t after(std::uint32_t segment) const {
    return std::uint16_t(first(segment) + (inside_ > 1 ? inside_ : 0));
  }
  std::size_t count(std::uint32_t segment) const {
    if (hosts_.owner(segment) == position_) return (inside_ > 1 ? inside_ : 0) + hosts_.hosts();
    return hosts_.is_proxy(position_, segment) && inside_ > 1 ? inside_ + 1 : 2;
  }

  const Hosts& hosts_;
  std::uint32_t position_;
  std::size_t inside_;
};

class Builder {
 public:
  Builder(const Hosts& hosts, std::uint32_t position)
      : hosts_(hosts),
        self_(position),
        mine_(hosts.on(hosts.host(position))),
        number_(hosts, position),
        plan_{position, hosts.world(), {}, hosts.segments()} {}

  Plan build(bool weighted) {
    for (std::uint32_t segment = 0; segment < hosts_.segments(); ++segment) add(segment);
    if (weighted) gather_weights_directly(plan_, [&](std::uint32_t p) { return Numbering(hosts_, p).all(); });
    return std::move(plan_);
  }

 private:
  void add(std::uint32_t segment) {
    const bool owner = hosts_.owner(segment) == self_, proxy = hosts_.is_proxy(self_, segment);
    if (proxy && mine_.size() > 1) add_inside(segment, owner);
    if (!proxy || (!owner && mine_.size() == 1)) add_own(segment, proxy);
    owner ? add_owner(segment) : add_result(segment);
  }

  // To the proxy, or where this peer is the only one on its host straight to the owner.
  void add_own(std::uint32_t segment, bool proxy) {
    const auto host = hosts_.host(self_);
    const auto to = proxy ? hosts_.owner(segment) : hosts_.proxy(host, segment);
    const Numbering theirs(hosts_, to);
    const auto step = proxy ? theirs.collect_across(segment, host) : theirs.collect_inside(segment, self_);
    plan_.steps.push_back(
        {.segment = segment, .merge = Merge::own, .gate = number_.result(segment), .to = {{to, step}}});
  }

  void add_inside(std::uint32_t segment, bool owner) {
    Step sum{.segment = segment, .merge = Merge::fold, .out = Wire::accumulator};
    for (const auto from : mine_) {
      sum.parts.push_back(from == self_ ? own_part : number_.collect_inside(segment, from));
      if (from == self_) continue;
      plan_.steps.push_back({.segment = segment,
                             .merge = Merge::collect,
                             .from = std::int32_t(from),
                             .fold = number_.sum_inside(segment)});
    }
    if (owner) {
      sum.fold = number_.result(segment);
    } else {
      const auto to = hosts_.owner(segment);
      sum.to = {{to, Numbering(hosts_, to).collect_across(segment, hosts_.host(self_))}};
    }
    plan_.steps.push_back(std::move(sum));
  }

  void add_owner(std::uint32_t segment) {
    Step sum{.segment = segment, .merge = Merge::fold, .write = true, .finish = true};
    for (std::uint32_t host = 0; host < hosts_.hosts(); ++host) {
      if (host == hosts_.host(self_)) {
        sum.parts.push_back(mine_.size() > 1 ? number_.sum_inside(segment) : own_part);
        continue;
      }
      const auto from = hosts_.proxy(host, segment);
      sum.parts.push_back(number_.collect_across(segment, host));
      plan_.steps.push_back({.segment = segment,
                             .merge = Merge::collect,
                             .from = std::int32_t(from),
                             .in = hosts_.on(host).size() > 1 ? Wire::accumulator : Wire::element,
                             .fold = number_.result(segment)});
      sum.to.push_back({from, Numbering(hosts_, from).result(segment)});
    }
    give_inside(segment, sum);
    plan_.steps.push_back(std::move(sum));
  }

  void add_result(std::uint32_t segment) {
    const bool proxy = hosts_.is_proxy(self_, segment);
    const auto from = proxy ? hosts_.owner(segment) : hosts_.proxy(hosts_.host(self_), segment);
    Step step{
        .segment = segment, .merge = Merge::replace, .from = std::int32_t(from), .write = true, .to = {}};
    if (proxy) give_inside(segment, step);
    plan_.steps.push_back(std::move(step));
  }

  void give_inside(std::uint32_t segment, Step& step) {
    for (const auto to : mine_)
      if (to != self_) step.to.push_back({to, Numbering(hosts_, to).result(segment)});
  }

  const Hosts& hosts_;
  std::uint32_t self_;
  const std::vector<std::uint32_t>& mine_;  // positions on this host
  Numbering number_;
  Plan plan_;
};

}  // namespace

bool has_two_levels(const std::vector<std::uint32_t>& host_of) {
  const Hosts hosts(host_of);
  return hosts.hosts() > 1 && hosts.hosts() < hosts.world();
}

Plan plan_two_level_all_reduce(std::uint32_t position, const std::vector<std::uint32_t>& host_of,
                               bool weighted) {
  const auto world = std::uint32_t(host_of.size());
  if (!has_two_levels(host_of)) return plan_direct_all_reduce(position, world, weighted);
  const Hosts hosts(host_of);
  return Builder(hosts, position).build(weighted);
}

std::uint32_t two_level_parts(const std::vector<std::uint32_t>& host_of) {
  const Hosts hosts(host_of);
  std::uint32_t most = 1;
  for (std::uint32_t p = 0; p < hosts.world(); ++p) {
    std::uint32_t parts = 0;
    for (std::uint32_t s = 0; s < hosts.segments(); ++s) {
      if (hosts.is_proxy(p, s)) parts += std::uint32_t(hosts.on(hosts.host(p)).size());
      if (hosts.owner(s) == p) parts += hosts.hosts();
    }
    most = std::max(most, parts);
  }
  return most;
}

}  // namespace pccl
