// A peer's thread: start, turns, the master's connection, status for users, end. What the session decides is
// done in peer_effects.cpp, data is in peer_data.cpp, user calls in peer_calls.cpp.
#include "runtime/peer_runtime.hpp"

#include <unistd.h>

#include <algorithm>

#include "net/address.hpp"
#include "runtime/link_speeds.hpp"
#include "runtime/own_thread.hpp"
#include "runtime/this_host.hpp"

namespace pccl {

namespace {
// "a:1, b:2": the master, and those that take its place. A name that nobody knows now is an error only if no
// other is known.
Result<std::vector<net::SocketAddress>> masters_at(const std::string& text) {
  std::vector<net::SocketAddress> all;
  std::optional<Error> unknown;
  for (std::size_t at = 0; at <= text.size();) {
    const auto end = std::min(text.find(',', at), text.size());
    auto one = text.substr(at, end - at);
    at = end + 1;
    one.erase(0, one.find_first_not_of(' '));
    one.erase(one.find_last_not_of(' ') + 1);
    auto where = net::parse_address(one);
    if (!where) return where.error();
    auto found = net::resolve(*where, net::Purpose::connect);
    if (!found)
      unknown = found.error();
    else
      all.insert(all.end(), found->begin(), found->end());
  }
  if (!all.empty()) return all;
  return unknown.value_or(Error{ErrorCode::connect, "no address is known for the master at " + text});
}
}  // namespace

Result<std::unique_ptr<PeerRuntime>> PeerRuntime::create(PeerOptions options) {
  if (auto error = net::check_congestion(options.congestion)) return error;
  if (options.secret.encrypts)
    if (auto error = net::Tls::available()) return error;
  auto addresses = masters_at(options.master);
  if (!addresses) return addresses.error();
  const bool open = !options.secret.empty() || options.insecure;
  if (!open &&
      !std::all_of(addresses->begin(), addresses->end(), [](const auto& a) { return a.is_loopback(); }))
    return Error{ErrorCode::usage,
                 "the master at " + options.master +
                     " is not on this host: give secret_file=, or insecure=True to go without"};
  if (options.listen.empty()) options.listen = open ? ":0" : "127.0.0.1:0";
  auto listen = net::parse_address(options.listen, 0);
  if (!listen) return listen.error();
  auto candidates = net::resolve(*listen, net::Purpose::listen);
  if (!candidates) return candidates.error();
  if (candidates->empty())
    return Error{ErrorCode::usage, "listen=" + options.listen + " names no address of this host"};
  if (!open && !candidates->front().is_loopback())
    return Error{ErrorCode::usage, "listen=" + options.listen +
                                       " is not loopback: give secret_file=, or insecure=True to go without"};
  auto hub = Hub::create();
  if (!hub) return hub.error();
  net::SocketOptions socket_options{options.congestion, {}, options.timing.unacked_max()};
  socket_options.path.same_host = addresses->front().is_loopback();
  auto listener = net::listen_on(candidates->front(), 256, socket_options);
  if (!listener) return listener.error();
  auto peer = std::unique_ptr<PeerRuntime>(
      new PeerRuntime(std::move(options), std::move(*hub), std::move(*addresses)));
  auto* raw = peer.get();
  if (auto error = peer->hub_->listen(std::move(*listener), socket_options,
                                      [raw](net::Accepted a) { raw->links_.accept(std::move(a)); }))
    return error;
  auto thread = start_thread([raw] { raw->run(); });
  if (!thread) return thread.error();
  peer->thread_ = std::move(*thread);
  return peer;
}

PeerRuntime::PeerRuntime(PeerOptions options, std::unique_ptr<Hub> hub,
                         std::vector<net::SocketAddress> master)
    : options_(std::move(options)),
      hub_(std::move(hub)),
      links_(*hub_, *this, options_.secret,
             {options_.congestion, options_.timing.unacked_max(), options_.stripes, options_.checksum},
             options_.look_up),
      master_(*hub_, *this, options_.secret, options_.master, std::move(master)),
      owner_process_(getpid()),
      same_host_(options_.ways, options_.join.host_id),
      recorder_(options_.recorded_events, options_.trace_folder) {
  if (!recorder_.error().empty()) log("events are recorded in memory only: " + recorder_.error());
}

PeerRuntime::~PeerRuntime() { close(); }

bool PeerRuntime::forked() const { return getpid() != owner_process_; }

void PeerRuntime::close() {
  if (forked()) {  // the thread does not exist here: joining or destroying it would end the process
    (void)thread_.release();
    return;
  }
  const std::lock_guard lock(close_mutex_);  // two threads may close: only one can join
  if (thread_ == nullptr) return;
  hub_->call([this] {
    end({ErrorCode::closed, "the communicator was closed"});
    stop_ = true;
  });
  thread_->join();
  thread_.reset();
  closed_ = true;
  hub_->stop_queueing();
}

void PeerRuntime::run() {
  begin_own_thread("pccl-io");
  give_up_dialling_ = monotonic_now() + std::min(options_.timing.first_dial, options_.timing.master_lost);
  bool short_slices = false;
  while (!stop_) {
    if (short_slices == states_.empty()) take_short_slices(short_slices = !short_slices);
    tick();
    for (const auto& more : std::exchange(unfinished_, {})) exchange_->go_on(more.key, more.attempt);
    drain();
    hub_->turn(next_deadline(), monotonic_now);
    drain();
    take_references();
    hub_->flush();
  }
  hub_->stop_listening();
  links_.close_all();
  master_.reconnect("closed");
}

void PeerRuntime::tick() {
  const auto now = monotonic_now();
  master_.tick(now);
  links_.open_due(now);
  if (now - links_ticked_ > second) {
    links_.tick(now);
    undo_pool_.tick(now);
    for (const auto& [peer, gone] : same_host_.forgotten()) links_.send(peer, gone);
    links_ticked_ = now;
    note_speeds(now);
    tell_slow(now);
  }
  if (const auto result = prober_.tick(now)) session_->probed(result->round, result->link);
  find_senders();
  refill_limits(now);
  if (session_ == nullptr || now < session_->next_deadline()) return;
  session_->set_stuck(unsourced_.empty() && stuck());
  session_->tick(now);
}

Instant PeerRuntime::next_deadline() const {
  if (!references_.empty() || slots_.owes()) return 0;
  if (!unfinished_.empty()) return monotonic_now();
  auto next = std::min({master_.next_deadline(), links_.next_deadline(), links_ticked_ + second + millisecond,
                        prober_.next_deadline()});
  for (const auto& waiting : unsourced_) next = std::min(next, waiting.deadline);
  for (const auto& [key, running] : running_)
    if (running.limit && running.held == 0) next = std::min(next, running.limit->next());
  return session_ == nullptr ? next : std::min(next, session_->next_deadline());
}

void PeerRuntime::refill_limits(Instant now) {
  for (auto& [key, running] : running_)
    if (running.limit && running.limit->due(now))
      exchange_->allow(key, running.limit->earn(now), running.limit->most());
}

void PeerRuntime::log(const std::string& line) const {
  if (options_.log) options_.log(line);
}

// Where others can dial this peer: what the user says; else the address by which the master is reached, or
// this host's interfaces when that is loopback. Loopback is offered only where nothing else can be meant.
std::vector<Address> PeerRuntime::reachable() const {
  const auto port = net::local_address(hub_->listener_fd()).port();
  std::vector<Address> addresses;
  for (const auto& text : options_.advertise)
    if (auto parsed = net::parse_address(text, port)) addresses.push_back(*parsed);
  if (!addresses.empty()) return addresses;
  const auto bound = net::local_address(hub_->listener_fd());
  if (!bound.is_any()) return {bound.address()};
  if (auto local = net::served_by(bound, {master_.local()});
      !local.empty() && local[0].family() != 0 && !local[0].is_loopback())
    return {{local[0].host(), port}};
  for (const auto& interface : net::served_by(bound, net::interface_addresses()))
    if (addresses.size() < limits::addresses_max) addresses.push_back({interface.host(), port});
  if (addresses.empty()) addresses.push_back({"127.0.0.1", port});
  return addresses;
}

// ---- the master's connection ----

void PeerRuntime::master_up() {
  if (session_ == nullptr) {
    auto join = options_.join;
    join.reachable_at = reachable();
    char host[256] = {};
    gethostname(host, sizeof host - 1);
    join.host = host;
    join.process = std::uint32_t(getpid());
    join.in_place = options_.ways != 0;
    if (join.host_id.empty()) join.host_id = this_host();
    session_ = std::make_unique<Session>(std::move(join), options_.timing);
    session_->ask_links([this](const OpKey& key) { return link_states(key); });
    exchange_ = std::make_unique<Exchange>(*session_);
    exchange_->ask_distance([this](PeerId peer) { return links_.distant(peer); });
  }
  note(EventKind::master_found, monotonic_now());
  session_->on_master_up(monotonic_now());
  drain();
}

void PeerRuntime::master_message(const ToPeer& message) {
  session_->on(message, monotonic_now());
  links_.identify(session_->run(), session_->peer());
  drain();
  publish();
}

void PeerRuntime::master_down(const Error& why) {
  if (session_ == nullptr) return end({why.code, "the master closed the connection: " + why.text});
  note(EventKind::master_lost, monotonic_now());
  session_->on_master_down(monotonic_now(), why.text);
  drain();
}

// Before the first connection there is no session that could wait: refusals are tried again for a while (the
// master may be starting), everything else ends it at once.
void PeerRuntime::master_unreachable(const Error& why, bool hopeless) {
  if (session_ != nullptr) return;
  if (hopeless || monotonic_now() >= give_up_dialling_) end(why);
}

// The stage that was reached, and what is known of it.
Error PeerRuntime::obstacle() const {
  if (ended_) return ended_;
  if (auto why = master_.obstacle()) return {ErrorCode::connect, why.text};
  if (session_ == nullptr || session_->door().empty())
    return {ErrorCode::timeout, "the master at " + options_.master + " has said nothing yet"};
  return {ErrorCode::timeout, session_->door()};
}

// After this nothing happens any more but answering "it is over".
void PeerRuntime::end(const Error& why) {
  if (ended_) return;
  ended_ = why;
  note(EventKind::ended, monotonic_now(), no_peer, std::uint64_t(why.code));
  if (session_ != nullptr && session_->stage() != Session::Stage::gone) {
    session_->leave(monotonic_now());
    drain();
  }
  if (auto boundary = std::exchange(boundary_, nullptr)) boundary->set({why, false});
  give_up_senders([&](const Unsourced&) { return why; });
  master_.close_politely();
  publish();
  admitted_->set(why);
}

void PeerRuntime::publish() {
  const std::lock_guard lock(status_mutex_);
  status_.end = ended_ || session_ == nullptr ? ended_ : session_->end();
  if (session_ == nullptr) return;
  if (status_.view.id != session_->view().id || status_.view.boundaries != session_->view().boundaries)
    status_.view = session_->view();
  status_.peer = session_->peer();
  status_.waiting = session_->waiting();
  status_.totals = totals_;
  status_.stage = ended_ ? Session::Stage::gone : session_->stage();
  status_.island = session_->identity().island;
}

}  // namespace pccl
