#include "runtime/master_runtime.hpp"

#include <unistd.h>

#include <algorithm>

#include "runtime/own_thread.hpp"

namespace pccl {

Result<std::unique_ptr<MasterRuntime>> MasterRuntime::create(MasterOptions options) {
  auto where = net::parse_address(options.listen, 0);
  if (!where) return where.error();
  auto candidates = net::resolve(*where, net::Purpose::listen);
  if (!candidates) return candidates.error();
  if (candidates->empty())
    return Error{ErrorCode::usage, "listen=" + options.listen + " names no address of this host"};
  const auto& address = candidates->front();
  if (!address.is_loopback() && options.secret.empty() && !options.insecure)
    return Error{ErrorCode::usage,
                 "a master on " + address.text() +
                     " could be joined by anybody: give secret_file=, or insecure=True to go without"};
  auto hub = Hub::create();
  if (!hub) return hub.error();
  const net::SocketOptions socket_options{"system", {}, 20 * second};
  auto listener = net::listen_on(address, 1024, socket_options);
  if (!listener) return listener.error();
  auto master = std::unique_ptr<MasterRuntime>(new MasterRuntime(std::move(options), std::move(*hub)));
  master->owner_process_ = getpid();
  master->bound_ = net::local_address(listener->fd());
  master->address_ = master->bound_.address();
  if (auto trainers = master->roster_for("", Role::trainer); !trainers) return trainers.error();
  auto* raw = master.get();
  if (auto error = master->hub_->listen(std::move(*listener), socket_options,
                                        [raw](net::Accepted a) { raw->accept(std::move(a)); }))
    return error;
  auto thread = start_thread([raw] { raw->run(); });
  if (!thread) return thread.error();
  master->thread_ = std::move(*thread);
  return master;
}

std::vector<Address> MasterRuntime::reachable() const {
  if (!bound_.is_any()) return {address_};
  std::vector<Address> all;
  for (const auto& interface : net::served_by(bound_, net::interface_addresses()))
    all.push_back({interface.host(), address_.port});
  all.push_back({"127.0.0.1", address_.port});
  return all;
}

void MasterRuntime::stop() {
  if (getpid() != owner_process_) {
    (void)thread_.release();
    return;
  }
  const std::lock_guard lock(stop_mutex_);
  if (thread_ == nullptr) return;
  hub_->call([this] { stop_ = true; });
  thread_->join();
  thread_.reset();
}

MasterStatus MasterRuntime::status() const {
  const std::lock_guard lock(status_mutex_);
  return status_;
}

void MasterRuntime::run() {
  begin_own_thread("pccl-master");
  while (!stop_) {
    const auto now = monotonic_now();
    each_roster([&](Roster& roster) { roster.tick(now); });
    check_strangers(now);
    stranger_log_.tick(now);
    each_roster([this](Roster& roster) { drain(roster); });
    forget_runs();
    hub_->turn(next_deadline(), monotonic_now);
    each_roster([this](Roster& roster) { drain(roster); });
    hub_->flush();
  }
  hub_->stop_listening();
  std::vector<net::Connection*> open;
  for (auto& [id, c] : connections_) open.push_back(c);
  for (auto* c : open) c->close({ErrorCode::closed, "the master was stopped"});
  each_roster([](Roster& roster) { roster.knocker.close_all(); });
}

void MasterRuntime::each_roster(const std::function<void(Roster&)>& action) const {
  for (const auto& [name, run] : runs_)
    for (const auto& [role, roster] : run.rosters) action(*roster);
}

// The first who names a run, or comes to it with a role, begins it.
Result<Roster*> MasterRuntime::roster_for(const std::string& run, Role role) {
  const auto known = runs_.find(run);
  if (known != runs_.end())
    if (const auto it = known->second.rosters.find(role); it != known->second.rosters.end())
      return it->second.get();
  if (known == runs_.end() && runs_.size() >= limits::runs_max)
    return Error{ErrorCode::refused, "this master serves " + std::to_string(limits::runs_max) +
                                         " runs already: leave some, or start another master"};
  auto nonce = net::random_nonce();
  if (!nonce) return nonce.error();
  MasterConfig config;
  config.timing = options_.timing;
  config.role = role;
  config.run = load_little<std::uint64_t>(nonce->data()) | 1;
  auto& roster = runs_[run].rosters[role];
  roster = std::make_unique<Roster>(run, std::move(config), *hub_, options_.secret, monotonic_now());
  return roster.get();
}

// By the first message, which says who it is. Null: refused.
Roster* MasterRuntime::roster_of(ConnectionId id, const ToMaster& message) {
  if (const auto it = roster_of_.find(id); it != roster_of_.end()) return it->second;
  std::string run;
  if (const auto* join = std::get_if<Join>(&message)) run = join->run_name;
  if (const auto* again = std::get_if<Register>(&message)) run = again->join.run_name;
  auto roster = roster_for(run, role_of(message));
  if (!roster) {
    send(id, Refused{roster.error().code, roster.error().text});
    close(id);
    return nullptr;
  }
  roster_of_[id] = *roster;
  ++(*roster)->connections;
  return *roster;
}

void MasterRuntime::forget_runs() {
  if (!std::exchange(somebody_went_, false)) return;
  for (auto it = runs_.begin(); it != runs_.end();) {
    if (it->first.empty() || !it->second.over()) {
      ++it;
      continue;
    }
    for (const auto& [role, roster] : it->second.rosters) roster->knocker.close_all();
    const std::lock_guard lock(status_mutex_);
    status_.peers.erase(it->first);
    it = runs_.erase(it);
  }
}

Instant MasterRuntime::next_deadline() const {
  auto next = stranger_log_.next_deadline();
  each_roster([&](const Roster& roster) { next = std::min(next, roster.next_deadline()); });
  if (!strangers_.empty() || !closing_.empty()) next = std::min(next, monotonic_now() + 200 * millisecond);
  return next;
}

void MasterRuntime::check_strangers(Instant now) {
  std::vector<net::Connection*> late;
  for (const auto& [id, stranger] : strangers_)
    if (now - stranger.since > introduction_timeout) late.push_back(connections_.at(id));
  for (const auto& [id, until] : closing_)
    if (now >= until && connections_.contains(id)) late.push_back(connections_.at(id));
  for (auto* c : late)
    if (ids_.contains(c)) c->close({ErrorCode::timeout, "no introduction came in time"});
}

void MasterRuntime::accept(net::Accepted accepted) {
  const auto nonce = net::random_nonce();
  if (!nonce || strangers_.size() >= limits::strangers_max) return;
  net::Connection::Handler& self = *this;
  auto& c = hub_->add(std::make_unique<net::Connection>(
      std::move(accepted.socket),
      net::Handshake(net::Side::acceptor, protocol_version, options_.secret, nonce.value()),
      accepted.from.text(), self));
  const auto id = next_id_++;
  connections_[id] = &c;
  ids_[&c] = id;
  strangers_[id] = {monotonic_now()};
  hub_->touch(c);
}

void MasterRuntime::on_ready(net::Connection& c) {
  // Whoever gets here knows the secret, if there is one, and a registration of a large run is long. Without a
  // secret strangers are few (strangers_max), and leave soon (introduction_timeout).
  c.trust();
}

bool MasterRuntime::on_message(net::Connection& c, ByteView body) {
  const auto id = ids_.at(&c);
  const auto message = wire::decode<ToMaster>(body);
  if (!message) return false;
  if (strangers_.erase(id) > 0) c.trust();
  if (closing_.contains(id)) return true;
  if (auto* roster = roster_of(id, *message)) {
    roster->master.on(id, *message, monotonic_now());
    drain(*roster);
  }
  return true;
}

void MasterRuntime::on_closed(net::Connection& c, const Error& why) {
  const auto it = ids_.find(&c);
  hub_->retire(c);
  if (it == ids_.end()) return;
  const auto id = it->second;
  ids_.erase(it);
  connections_.erase(id);
  closing_.erase(id);
  if (strangers_.erase(id) > 0) stranger_log_.gone(c.remote(), why.text, monotonic_now());
  const auto joined = roster_of_.extract(id);
  if (joined.empty()) return;
  auto& roster = *joined.mapped();
  --roster.connections;
  somebody_went_ = true;
  roster.master.on_closed(id, monotonic_now());
  drain(roster);
}

void MasterRuntime::drain(Roster& roster) {
  auto& master = roster.master;
  for (auto effects = master.take_effects(); !effects.empty(); effects = master.take_effects())
    for (auto& e : effects) std::visit([&](auto& x) { apply(roster, x); }, e);
  note_status(roster);
}

void MasterRuntime::note_status(const Roster& roster) {
  const std::lock_guard lock(status_mutex_);
  const auto now = runs_.at(roster.run).peers();
  auto& peers = status_.peers[roster.run];
  if (now < peers) somebody_went_ = true, ++status_.departures;
  peers = now;
  if (!roster.run.empty()) return;
  auto& status = status_.rosters[roster.role];
  const auto& view = roster.master.view();
  status.waiting = roster.master.waiting();
  if (status.view.id != view.id || status.view.boundaries != view.boundaries) status.view = view;
}

void MasterRuntime::send(ConnectionId id, const ToPeer& message) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  Bytes body;
  wire::encode(message, body);
  it->second->send_message(body);
  hub_->touch(*it->second);
}

void MasterRuntime::close(ConnectionId id) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  closing_[id] = monotonic_now() + second;
  it->second->close_when_sent({ErrorCode::closed, "told to go"});
  hub_->touch(*it->second);
}

void MasterRuntime::apply(Roster&, master_effect::Send& e) { send(e.to, e.message); }

void MasterRuntime::apply(Roster&, master_effect::Close& e) { close(e.connection); }

void MasterRuntime::apply(Roster& roster, master_effect::Knock& e) {
  roster.knocker.knock(e.peer, std::move(e.addresses), monotonic_now());
}

// A store that outlives the master comes with its restart; without one a view lives in the peers' memory.
void MasterRuntime::apply(Roster&, master_effect::Persist&) {}

void MasterRuntime::apply(Roster& roster, master_effect::Notice& e) {
  if (options_.log) options_.log(roster.label() + e.text);
}

}  // namespace pccl
