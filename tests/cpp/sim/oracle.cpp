#include "sim/oracle.hpp"

#include <algorithm>

#include "sim/process.hpp"
#include "sim/world.hpp"

namespace pccl::sim {

namespace {

std::string list(const std::set<std::uint32_t>& processes) {
  std::string all;
  for (const auto p : processes) all += (all.empty() ? "p" : ",p") + std::to_string(p + 1);
  return all.empty() ? "nobody" : all;
}

}  // namespace

std::set<std::uint32_t> Oracle::processes_of(const std::vector<PeerId>& peers) const {
  std::set<std::uint32_t> all;
  for (const auto peer : peers) all.insert(world_.index_of(peer));
  return all;
}

// ---- views ----

// Islands are whole, and nobody whom this master has removed comes back.
void Oracle::announced(std::uint32_t master, Role role, const View& view) {
  check_islands(view, "the master announces");
  for (const auto& m : view.members)
    if (m.role != role)
      world_.violated("the view of the " + std::string(pccl::name(role)) + "s names a " + pccl::name(m.role) +
                      ": " + world_.text(view));
  auto& [last, left] = announced_[{master, role}];
  std::set<PeerId> now;
  for (const auto& m : view.members) now.insert(m.peer);
  for (const auto peer : last)
    if (!now.contains(peer)) left.insert(peer);
  for (const auto peer : now)
    if (left.contains(peer))
      world_.violated(std::string("view ") + world_.text(view) + " names " + world_.name_of(peer) +
                      ", whom the master had removed");
  last = std::move(now);
}

void Oracle::check_islands(const View& view, const std::string& who) {
  std::map<std::string, std::uint32_t> ranks;
  for (const auto& m : view.members) ++ranks[m.island];
  for (const auto& [island, count] : ranks)
    if (count != world_.scenario.island_size && !island.starts_with("peer-"))
      world_.violated(who + " a view with half of island " + island + ": " + world_.text(view));
}

// Whatever happens to peers of one role: those of another lose nobody, and no attempt.
void Oracle::check_untouched(const Process& process, const std::string& what) {
  if (!world_.struck(process))
    world_.violated(process.name() + " " + what + " though nothing happens to any " +
                    pccl::name(process.session.identity().role));
}

void Oracle::told(Process& process, const View& view) {
  world_.note(process.name() + " view " + world_.text(view));
  check_islands(view, process.name() + " is told");
  auto& told = told_[process.index];
  std::set<std::uint32_t> now;
  for (const auto& m : view.members) now.insert(world_.index_of(m.peer));
  for (const auto p : told.members)
    if (!now.contains(p)) {
      told.left.insert(p);
      if (p < processes_max)  // else nobody knows yet whom it is
        check_untouched(process, "loses p" + std::to_string(p + 1));
    }
  for (const auto p : now)
    if (told.left.contains(p))
      world_.violated(process.name() + " is told view " + world_.text(view) +
                      " with one who had left it before");
  told.members = std::move(now);
}

void Oracle::admitted(Process& process) {
  ++joins;
  stays_[process.index].admitted = world_.now();
  world_.note(process.name() + " is admitted as peer " + std::to_string(process.session.peer()));
}

// A boundary passes with all members or not at all: nobody is let through who is not there.
void Oracle::lets_pass(Process& process, std::uint32_t boundaries) {
  const bool member = process.alive && process.session.stage() == Session::Stage::member;
  if (!member || process.boundaries() >= boundaries || process.session.at_boundary()) return;
  world_.violated("boundary " + std::to_string(boundaries) + " passes without " + process.name());
}

void Oracle::passed(Process& process, std::uint32_t boundaries, bool skipped) {
  skips += skipped;
  world_.note(process.name() + (skipped ? " skips a boundary after " : " passes boundary ") +
              std::to_string(boundaries));
}

void Oracle::boundary_failed(Process& process, const Error& why) {
  world_.note(process.name() + " fails at the boundary: " + why.text);
  const bool own = why.code == ErrorCode::timeout || why.code == ErrorCode::cancelled;
  if (!process.scripted && !process.over() && !(own && process.impatient()))
    world_.violated(process.name() + " fails at the boundary out of nowhere: " + why.text);
}

// ---- operations ----

void Oracle::posted(Process& process, const OpKey& key) {
  world_.note(process.name() + " posts " + pccl::describe(key));
}

// Whoever delivered an operation and is a member of this view must not see it attempted again.
void Oracle::started(Process& process, const OpKey& key, ViewId view) {
  if (world_.tracing())
    world_.note(process.name() + " starts " + pccl::describe(key) + " in view " + sim::text(view));
  const auto it = deliveries_.find({process.session.identity().role, key});
  if (it == deliveries_.end()) return;
  for (const auto& [other, delivery] : it->second) {
    if (delivery.code != ErrorCode::none || view < delivery.view ||
        !told_[process.index].members.contains(other))
      continue;
    const auto& group = world_.process(other).session.identity().group;
    if (key.scope == Scope::group && group != key.group) continue;
    world_.violated(process.name() + " attempts " + pccl::describe(key) + " in view " + sim::text(view) +
                    ", which p" + std::to_string(other + 1) + " has delivered with " +
                    list(delivery.contributors));
  }
}

void Oracle::aborted(Process& process, const OpKey& key) {
  ++aborts;
  if (world_.tracing()) world_.note(process.name() + " aborts " + pccl::describe(key));
}

void Oracle::delivered(Process& process, const OpKey& key, const Intent& intent, PeerId root,
                       const Outcome& outcome, const Memory* memory, const Version& state) {
  Delivery delivery{outcome.error.code,
                    processes_of(outcome.contributors),
                    process.session.identity().group,
                    outcome.waiting,
                    state,
                    process.session.view().id};
  world_.note(process.name() + " delivers " + pccl::describe(key) + ": " +
              (outcome.error ? outcome.error.text
                             : list(delivery.contributors) + ", waiting " + std::to_string(outcome.waiting)));
  if (outcome.error) check_code(process, key, intent, outcome.error);
  check_data(process, key, intent.call, world_.index_of(root), outcome.contributors, delivery, memory);
  ++(outcome.error ? failures : commits);
  const bool nobody_sends = intent.call == Call::sync_state && outcome.error.code == ErrorCode::mismatch;
  if ((outcome.error && !nobody_sends) || outcome.attempts != 1)
    check_untouched(process, "needs more than one attempt at " + pccl::describe(key));
  auto& all = deliveries_[{process.session.identity().role, key}];
  // While no master has died, what one has decided holds for everybody, also for those who are gone by now.
  const bool ended = process.session.stage() == Session::Stage::gone;
  if (!ended && !world_.master_died())
    for (const auto& [other, theirs] : all)
      if (const auto what = compare(delivery, theirs); !what.empty())
        world_.violated(process.name() + " and p" + std::to_string(other + 1) + " differ about " +
                        pccl::describe(key) + ": " + what);
  if (ended) return;
  if (!all.emplace(process.index, std::move(delivery)).second)
    world_.violated(process.name() + " delivers " + pccl::describe(key) + " twice");
}

std::string Oracle::compare(const Delivery& a, const Delivery& b) const {
  if (a.code != b.code)
    return "one committed or failed otherwise: codes " + std::to_string(int(a.code)) + " and " +
           std::to_string(int(b.code));
  if (a.code != ErrorCode::none) return {};
  if (a.waiting != b.waiting)
    return "waiting " + std::to_string(a.waiting) + " and " + std::to_string(b.waiting);
  if (a.group == b.group && a.contributors != b.contributors)
    return "contributors " + list(a.contributors) + " and " + list(b.contributors);
  if (a.group == b.group && a.state != b.state) return "they hold different states";
  return {};
}

// Each contributor exactly once in every element; an input that is not also the output is never touched.
void Oracle::check_data(Process& process, const OpKey& key, Call call, std::uint32_t root,
                        const std::vector<PeerId>& contributors, const Delivery& delivery,
                        const Memory* memory) {
  if (memory == nullptr) return;
  const bool committed = delivery.code == ErrorCode::none;
  if (!committed && memory->lost()) return;
  if ((!committed || !memory->in_place()) && !memory->input_intact())
    return world_.violated(process.name() + " has a changed input after " + pccl::describe(key) + ": " +
                           memory->text());
  if (!committed) return;
  Value wanted = call == Call::broadcast ? one(root) : 0;
  if (call == Call::all_reduce)
    for (const auto p : delivery.contributors) wanted = add(wanted, one(p));
  if (call == Call::transfer)
    wanted = key.to == process.session.peer() ? one(world_.index_of(key.from)) : garbage;
  if (in_blocks(call) ? !right_blocks(process, call, root, contributors, *memory)
                      : !memory->output_is(wanted))
    world_.violated(process.name() + " delivers " + pccl::describe(key) + " of " +
                    list(delivery.contributors) + " with wrong data: " + memory->text());
}

// Whose blocks lie where, by segments; what a peer does not receive stays as it was.
bool Oracle::right_blocks(Process& process, Call call, std::uint32_t root, const std::vector<PeerId>& by_rank,
                          const Memory& memory) const {
  const auto world = by_rank.size();
  const auto rank = std::size_t(std::ranges::find(by_rank, process.session.peer()) - by_rank.begin());
  Value sum = 0;
  for (const auto peer : by_rank) sum = add(sum, one(world_.index_of(peer)));
  for (std::size_t block = 0; block < world; ++block) {
    Value wanted = garbage;
    const auto of = [&](std::size_t position) { return one(world_.index_of(by_rank[position])); };
    if (call == Call::all_gather || (call == Call::gather && process.index == root)) wanted = of(block);
    if (call == Call::all_to_all) wanted = of((rank + world - block) % world);
    if (call == Call::scatter && block == rank) wanted = one(root);
    if (call == Call::reduce_scatter && block == rank) wanted = sum;
    if (!memory.block_is(std::uint32_t(block), wanted)) return false;
  }
  return true;
}

// The programs are the same: what they do not do themselves never goes wrong.
void Oracle::check_code(Process& process, const OpKey& key, const Intent& intent, const Error& error) {
  if (process.scripted || process.over()) return;
  const bool expected =
      (error.code == ErrorCode::cancelled && intent.canceller != UINT32_MAX) ||
      (error.code == ErrorCode::timeout && intent.timeout != never) ||
      (error.code == ErrorCode::peer_lost &&
       (intent.on_loss != OnLoss::retry || goes_straight(intent.call) || intent.call == Call::broadcast)) ||
      (error.code == ErrorCode::mismatch &&
       (has_root(intent.call) || in_blocks(intent.call) || intent.call == Call::sync_state)) ||
      (error.code == ErrorCode::outcome_unknown &&
       (intent.canceller != UINT32_MAX || intent.timeout != never));
  if (!expected)
    world_.violated(process.name() + " delivers " + pccl::describe(key) +
                    " with an error out of nowhere: " + error.text);
}

// An operation that was held when the session ended may have been committed by the others: that is what must
// be said.
void Oracle::gone(Process& process, const Error& why) {
  stays_[process.index].gone = world_.now();
  if (why.code != ErrorCode::closed) ++ends;
  check_untouched(process, "is gone");
  bool mate_left = false;  // of its island, which goes as a whole
  const auto& island = process.session.identity().island;
  for (std::uint32_t p = 0; p < world_.processes(); ++p) {
    const auto& other = world_.process(p);
    const bool mate = p != process.index && other.session.identity().island == island;
    mate_left |= mate && (!other.alive || other.over());
  }
  if (why.code != ErrorCode::closed && !mate_left && world_.only_links_fail())
    world_.violated(process.name() + " is gone where only links fail: " + why.text);
  world_.note(process.name() + " is gone: " + why.text);
  if (why.text.empty()) world_.violated(process.name() + " is gone without a reason");
}

// Where all of a role had left a run that its master then could not know of, the next one begins another.
bool Oracle::met(std::uint32_t p, std::uint32_t q) const {
  const auto &a = stays_.at(p), &b = stays_.at(q);
  return a.admitted < b.gone && b.admitted < a.gone;
}

void Oracle::settled() {
  for (const auto& [of, all] : deliveries_) {
    const auto& key = of.second;
    const Delivery* first = nullptr;
    std::uint32_t first_process = 0;
    std::map<std::uint32_t, std::pair<std::uint32_t, const Delivery*>> by_group;
    for (const auto& [p, delivery] : all) {
      auto& process = world_.process(p);
      const bool stayed = process.finished() || (process.alive && !process.over());
      if (!stayed || (process.over() && process.session.end().code != ErrorCode::closed)) continue;
      if (const auto same = by_group.find(delivery.group);
          same != by_group.end() && met(same->second.first, p))
        if (const auto what = compare(*same->second.second, delivery); !what.empty())
          return world_.violated("in the end peers of one group differ about " + pccl::describe(key) + " (p" +
                                 std::to_string(p + 1) + "): " + what);
      by_group[delivery.group] = {p, &delivery};
      if (first != nullptr && met(first_process, p))
        if (const auto what = compare(*first, delivery); !what.empty())
          return world_.violated("in the end p" + std::to_string(first_process + 1) + " and p" +
                                 std::to_string(p + 1) + " differ about " + pccl::describe(key) + ": " +
                                 what);
      first = &delivery;
      first_process = p;
    }
  }
}

}  // namespace pccl::sim
