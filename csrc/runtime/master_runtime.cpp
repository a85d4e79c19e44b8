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
    for (auto& [name, run] : runs_) run->tick(now);
    if (now >= young_until_) let_newcomers_in();
    check_strangers(now);
    stranger_log_.tick(now);
    drain_all();
    forget_runs();
    hub_->turn(next_deadline(), monotonic_now);
    drain_all();
    hub_->flush();
  }
  hub_->stop_listening();
  std::vector<net::Connection*> open;
  for (auto& [id, c] : connections_) open.push_back(c);
  const auto why = status_.fenced.empty() ? std::string("the master was stopped") : status_.fenced;
  for (auto* c : open) c->close({ErrorCode::closed, why});
  for (auto& [name, run] : runs_) run->knocker.close_all();
}

void MasterRuntime::say_unread(const MasterStore::Records& records) {
  constexpr std::size_t lines_max = 10;
  const auto count = records.unread.size();
  for (std::size_t i = 0; i < std::min(count, lines_max); ++i)
    log_line("a record of the store cannot be read: " + records.unread[i]);
  if (count > 0)
    log_line(std::to_string(count) + " of " + std::to_string(count + records.found.size()) +
             " records of the store cannot be read: the members of these runs are not waited for; make them "
             "readable and start this master again, or remove them");
}

// Those that the store knows, and the one without a name.
std::optional<Error> MasterRuntime::restore_runs() {
  if (options_.store) {
    auto records = options_.store->load();
    if (!records) return records.error();
    say_unread(*records);
    for (const auto& bytes : records->found) {
      auto record = decode_run_record(bytes);
      if (!record) {
        log_line("a record of the store is damaged or of another version: its run is forgotten");
        continue;
      }
      start_run(record->run_name, {.timing = options_.timing,
                                   .rules = {},
                                   .run = record->run,
                                   .restarted = true,
                                   .stored = Stored{record->incarnation, std::move(record->view)}})
          ->kept = true;
    }
  }
  if (runs_.contains("")) return std::nullopt;
  if (auto run = begin_run(""); !run) return run.error();
  return std::nullopt;
}

Result<MasterRun*> MasterRuntime::begin_run(const std::string& name) {
  if (runs_.size() >= options_.runs_max && !runs_.contains(name))
    return Error{ErrorCode::refused, "this master serves " + std::to_string(options_.runs_max) +
                                         " runs already: leave some, or start another master"};
  auto nonce = net::random_nonce();
  if (!nonce) return nonce.error();
  return start_run(name, {.timing = options_.timing,
                          .rules = {},
                          .run = load_little<std::uint64_t>(nonce->data()) | 1,
                          .restarted = false,
                          .stored = {}});
}

MasterRun* MasterRuntime::start_run(const std::string& name, MasterConfig config) {
  auto& run = runs_[name];
  const bool restarted = config.restarted;
  run = std::make_unique<MasterRun>(name, std::move(config), *hub_, options_.secret, monotonic_now());
  run->awaited = restarted;
  return run.get();
}

// A member of a run that this master does not know: it was another process's, so its other members come too.
MasterRun* MasterRuntime::hear_of(MasterRun& run, const Register& message) {
  if (!run.over() || run.master.run() == message.run) return &run;
  run.knocker.close_all();
  return start_run(run.name,
                   {.timing = options_.timing, .rules = {}, .run = 0, .restarted = true, .stored = {}});
}

// By the first message, which says who it is. Null: refused.
MasterRun* MasterRuntime::run_of(ConnectionId id, const ToMaster& message) {
  if (const auto it = run_of_.find(id); it != run_of_.end()) return it->second;
  std::string name;
  if (const auto* join = std::get_if<Join>(&message)) name = join->run_name;
  if (const auto* again = std::get_if<Register>(&message)) name = again->join.run_name;
  const auto it = runs_.find(name);
  auto run = it != runs_.end() ? Result<MasterRun*>(it->second.get()) : begin_run(name);
  if (!run) {
    auto& nameless = *runs_.at("");
    master_effect::Send refusal{id, Refused{run.error().code, run.error().text}};
    master_effect::Close close{id};
    apply(nameless, refusal);
    apply(nameless, close);
    return nullptr;
  }
  if (const auto* again = std::get_if<Register>(&message)) run = hear_of(**run, *again);
  run_of_[id] = *run;
  ++(*run)->connections;
  return *run;
}

void MasterRuntime::forget_runs() {
  if (!std::exchange(somebody_went_, false)) return;
  for (auto it = runs_.begin(); it != runs_.end();) {
    if (!it->second->over()) {
      ++it;
      continue;
    }
    if (std::exchange(it->second->kept, false)) options_.store->forget(it->first);
    if (it->first.empty()) {
      renew_nameless(*(it++)->second);
      continue;
    }
    it->second->knocker.close_all();
    const std::lock_guard lock(status_mutex_);
    status_.peers.erase(it->first);
    it = runs_.erase(it);
  }
}

// One that heard too few of its last view lets nobody in; when these have gone, the next run may begin.
void MasterRuntime::renew_nameless(MasterRun& run) {
  if (!run.master.recovering()) return;
  run.knocker.close_all();
  if (!begin_run("")) somebody_went_ = true;  // no random numbers now: again at the next departure
}

Instant MasterRuntime::next_deadline() const {
  auto next = std::min(stranger_log_.next_deadline(), serve_until_.load());
  for (const auto& [name, run] : runs_) next = std::min(next, run->next_deadline());
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
  auto* run = run_of(id, message);
  if (run == nullptr) return;
  run->master.on(id, message, monotonic_now());
  drain(*run);
}

// This process may follow one that was killed, whose members dial again: a newcomer that is faster than all
// of them must not begin another run in place of theirs.
bool MasterRuntime::comes_early(ConnectionId id, const Join& join) const {
  if (monotonic_now() >= young_until_ || run_of_.contains(id)) return false;
  const auto run = runs_.find(join.run_name);
  return run == runs_.end() || run->second->over();
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
  const auto joined = run_of_.extract(id);
  if (joined.empty()) return;
  auto& run = *joined.mapped();
  --run.connections;
  somebody_went_ = true;
  run.master.on_closed(id, monotonic_now());
  drain(run);
}

void MasterRuntime::drain_all() {
  for (auto& [name, run] : runs_) drain(*run);
}

void MasterRuntime::drain(MasterRun& run) {
  auto& master = run.master;
  for (auto effects = master.take_effects(); !effects.empty(); effects = master.take_effects())
    for (auto& e : effects)
      if (may_serve()) std::visit([&](auto& x) { apply(run, x); }, e);
  if (run.awaited && !master.listening()) run.awaited = false, somebody_went_ = true;
  const std::lock_guard lock(status_mutex_);
  auto& peers = status_.peers[run.name];
  if (master.peers() < peers) somebody_went_ = true, ++status_.departures;
  peers = master.peers();
  if (!run.name.empty()) return;
  status_.waiting = master.waiting();
  if (status_.view.id != master.view().id || status_.view.boundaries != master.view().boundaries)
    status_.view = master.view();
}

void MasterRuntime::apply(MasterRun&, master_effect::Send& e) {
  const auto it = connections_.find(e.to);
  if (it == connections_.end()) return;
  Bytes body;
  wire::encode(e.message, body);
  it->second->send_message(body);
  hub_->touch(*it->second);
}

void MasterRuntime::apply(MasterRun&, master_effect::Close& e) {
  const auto it = connections_.find(e.connection);
  if (it == connections_.end()) return;
  closing_[e.connection] = monotonic_now() + second;
  it->second->close_when_sent({ErrorCode::closed, "told to go"});
  hub_->touch(*it->second);
}

void MasterRuntime::apply(MasterRun& run, master_effect::Knock& e) {
  run.knocker.knock(e.peer, std::move(e.addresses), monotonic_now());
}

void MasterRuntime::apply(MasterRun& run, master_effect::Persist& e) {
  if (!options_.store) return;
  const auto record = encode_run_record({run.name, run.master.run(), e.incarnation, e.view});
  run.kept = true;
  const auto outcome = options_.store->keep(run.name, record);
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
    for (const auto& [name, run] : runs_) found.runs[name] = run->master.report(monotonic_now());
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

void MasterRuntime::apply(MasterRun& run, master_effect::Notice& e) {
  note_event(run.name, e.text);
  if (options_.log) options_.log(run.name.empty() ? e.text : "run '" + run.name + "': " + e.text);
}

}  // namespace pccl
