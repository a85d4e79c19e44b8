#include "runtime/master_runtime.hpp"

#include <unistd.h>

#include <algorithm>

#include "runtime/handles.hpp"
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
  if (options.secret.encrypts)
    if (auto error = net::Tls::available()) return error;
  auto hub = Hub::create();
  if (!hub) return hub.error();
  const net::SocketOptions socket_options{"system", {}, 20 * second};
  auto listener = net::listen_on(address, 1024, socket_options);
  if (!listener) return listener.error();
  auto master = std::unique_ptr<MasterRuntime>(new MasterRuntime(std::move(options), std::move(*hub)));
  master->owner_process_ = getpid();
  master->bound_ = net::local_address(listener->fd());
  master->address_ = master->bound_.address();
  if (auto error = master->restore_runs()) return *error;
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
  options_.store.reset();  // another master may have it now
}

MasterStatus MasterRuntime::status() const {
  const std::lock_guard lock(status_mutex_);
  return status_;
}

void MasterRuntime::run() {
  begin_own_thread("pccl-master");
  // Of an address that nobody could know before there is no run to go on with.
  if (auto asked = net::parse_address(options_.listen, 0); asked && asked->port != 0)
    young_until_ = monotonic_now() + young_for;
  while (may_serve()) {
    const auto now = monotonic_now();
    each_roster([&](Roster& roster) { roster.tick(now); });
    if (now >= young_until_) let_newcomers_in();
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
  const auto why = status_.fenced.empty() ? std::string("the master was stopped") : status_.fenced;
  for (auto* c : open) c->close({ErrorCode::closed, why});
  each_roster([](Roster& roster) { roster.knocker.close_all(); });
}

Instant MasterRuntime::next_deadline() const {
  auto next = std::min(stranger_log_.next_deadline(), serve_until_.load());
  each_roster([&](const Roster& roster) { next = std::min(next, roster.next_deadline()); });
  if (!newcomers_.empty()) next = std::min(next, young_until_);
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
  if (const auto why = from_where_.refuses(accepted.from); !why.empty())
    return stranger_log_.gone(accepted.from.text(), why, monotonic_now());
  const auto nonce = net::random_nonce();
  if (!nonce) return;
  net::Connection::Handler& self = *this;
  auto& c = hub_->add(std::make_unique<net::Connection>(
      std::move(accepted.socket),
      net::Handshake(net::Side::acceptor, protocol_version, options_.secret, nonce.value()),
      accepted.from.text(), self));
  const auto id = next_id_++;
  connections_[id] = &c;
  ids_[&c] = id;
  strangers_[id] = {monotonic_now()};
  from_where_.came(&c, accepted.from);
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
  if (strangers_.erase(id) > 0) {
    from_where_.left(&c);
    c.trust();
  }
  if (closing_.contains(id)) return true;
  if (newcomers_.contains(id)) let_newcomers_in();  // it says more
  const auto* join = std::get_if<Join>(&*message);
  if (join != nullptr && comes_early(id, *join))
    newcomers_.emplace(id, *join);
  else
    hear(id, *message);
  return true;
}

void MasterRuntime::hear(ConnectionId id, const ToMaster& message) {
  auto* roster = roster_of(id, message);
  if (roster == nullptr) return;
  roster->master.on(id, message, monotonic_now());
  drain(*roster);
}

// This process may follow one that was killed, whose members dial again: a newcomer that is faster than all
// of them must not begin another run in place of theirs.
bool MasterRuntime::comes_early(ConnectionId id, const Join& join) const {
  if (monotonic_now() >= young_until_ || roster_of_.contains(id)) return false;
  const auto run = runs_.find(join.run_name);
  if (run == runs_.end()) return true;
  const auto roster = run->second.rosters.find(join.role);
  return roster == run->second.rosters.end() || roster->second->over();
}

void MasterRuntime::let_newcomers_in() {
  for (const auto& [id, join] : std::exchange(newcomers_, {}))
    if (connections_.contains(id)) hear(id, join);
}

void MasterRuntime::on_closed(net::Connection& c, const Error& why) {
  const auto it = ids_.find(&c);
  hub_->retire(c);
  if (it == ids_.end()) return;
  const auto id = it->second;
  ids_.erase(it);
  connections_.erase(id);
  closing_.erase(id);
  from_where_.left(&c);
  newcomers_.erase(id);
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
    for (auto& e : effects)
      if (may_serve()) std::visit([&](auto& x) { apply(roster, x); }, e);
  if (roster.awaited && !master.listening()) roster.awaited = false, somebody_went_ = true;
  auto& run = runs_.at(roster.run);
  for (const auto& [role, other] : run.rosters)
    other->master.on_others(run.doubt_of_others(role), monotonic_now());
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

void MasterRuntime::apply(Roster& roster, master_effect::Persist& e) {
  if (!options_.store) return;
  const auto record =
      encode_run_record({roster.run, roster.role, roster.master.run(), e.incarnation, e.view});
  roster.kept = true;
  const auto outcome = options_.store->keep(roster.key(), record);
  if (outcome.kind == MasterStore::Outcome::Kind::failed) log_line(outcome.why);
  if (outcome.kind == MasterStore::Outcome::Kind::fenced) end_service(outcome.why);
}

// A process that was stopped for a while wakes between any two lines: so it is asked before each effect.
bool MasterRuntime::may_serve() {
  if (!stop_ && monotonic_now() >= serve_until_) end_service("its lease ran out before it was renewed");
  return !stop_;
}

void MasterRuntime::fence(const std::string& why) {
  hub_->call([this, why] {
    if (!stop_) end_service(why);
  });
}

// Nothing goes out any more, above all not the view that could not be kept.
void MasterRuntime::end_service(const std::string& why) {
  stop_ = true;
  log_line("this master serves no more: " + why);
  const std::lock_guard lock(status_mutex_);
  status_.fenced = why;
}

std::optional<MasterReport> MasterRuntime::report(Duration timeout) const {
  auto asked = std::make_shared<Promise<MasterReport>>();
  hub_->call([this, asked] {
    MasterReport found{{}, events_, events_written_};
    each_roster(
        [&](const Roster& roster) { found.runs[roster.title()] = roster.master.report(monotonic_now()); });
    asked->set(std::move(found));
  });
  if (!asked->wait_for(timeout)) return std::nullopt;
  return asked->get();
}

void MasterRuntime::note_event(const std::string& run, const std::string& text) {
  const auto wall = std::chrono::system_clock::now().time_since_epoch();
  events_.push_back({std::chrono::duration_cast<std::chrono::milliseconds>(wall).count(), run, text});
  if (events_.size() > events_max) events_.pop_front();
  ++events_written_;
}

void MasterRuntime::log_line(const std::string& text) {
  note_event({}, text);
  if (options_.log) options_.log(text);
}

void MasterRuntime::apply(Roster& roster, master_effect::Notice& e) {
  note_event(roster.run,
             roster.role == Role::trainer ? e.text : std::string(name(roster.role)) + "s: " + e.text);
  if (options_.log) options_.log(roster.label() + e.text);
}

}  // namespace pccl
