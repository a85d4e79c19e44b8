// What user threads call: each hands a request to the I/O thread and returns a handle to wait on.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "kernels/finite.hpp"
#include "runtime/peer_runtime.hpp"

namespace pccl {

namespace {
int this_thread() { return int(syscall(SYS_gettid)); }
}  // namespace

PeerRuntime::Blocked::Blocked(PeerRuntime& peer) : peer_(peer) { ++peer_.blocked_; }
PeerRuntime::Blocked::~Blocked() { --peer_.blocked_; }

// Every thread that has ever posted, and still lives, is blocked in a call: nothing new can come from this
// peer.
bool PeerRuntime::stuck() const {
  const std::lock_guard lock(status_mutex_);
  int living = 0;
  for (const auto thread : threads_)
    living += syscall(SYS_tgkill, owner_process_, thread, 0) == 0 || errno != ESRCH;
  return blocked_ >= living && living > 0;
}

namespace {
// Looked at on the caller's thread, before anything is sent: all peers hear it with the weights.
void skip_if_not_finite(PostRequest& request) {
  const auto& d = request.posting.descriptor;
  if (!d.skips) return;
  const bool finite = std::all_of(request.tensors.begin(), request.tensors.end(), [&](const TensorSpan& t) {
    return kernels::all_finite(t.dtype, t.in, t.count, d.quantization);
  });
  if (!finite) request.weight = skipped_weight;
}
}  // namespace

std::shared_ptr<OperationHandle> PeerRuntime::post(PostRequest request) {
  const auto called = monotonic_now();  // the hand-over to the I/O thread counts too
  skip_if_not_finite(request);
  auto handle = std::make_shared<OperationHandle>();
  {
    const std::lock_guard lock(status_mutex_);
    threads_.insert(this_thread());
  }
  hub_->call([this, handle, called, request = std::make_shared<PostRequest>(std::move(request))] {
    if (must_await_sender(request->posting))
      await_sender(handle, std::move(*request), called);
    else
      begin(handle, std::move(*request), called);
    drain();
  });
  return handle;
}

namespace {
void refuse(OperationHandle& handle, Error why) {
  handle.result.set({{std::move(why), {}, 0, 0}, 0, 0, 0, 0});
}
}  // namespace

void PeerRuntime::begin(std::shared_ptr<OperationHandle> handle, PostRequest request, Instant called) {
  if (ended_) return refuse(*handle, ended_);
  if (session_ == nullptr) return refuse(*handle, {ErrorCode::usage, "this peer is not admitted yet"});
  Running running{handle, nullptr, request.weight, called, 0, 0};
  const auto& d = request.posting.descriptor;
  running.call = d.call;
  for (const auto& t : request.tensors) running.bytes += t.count * size_of(t.dtype);
  if (request.coded) {
    if (auto why = fault_of(*request.coded)) return refuse(*handle, why);
    running.memory = std::make_unique<OperationMemory>(*request.coded, undo_pool_);
    running.sums = request.coded->sums;
    running.position = request.coded->position;
    for (const auto& block : request.coded->blocks) running.bytes += block.size();
  } else {
    running.memory = std::make_unique<OperationMemory>(std::move(request.tensors), d.op, request.weight,
                                                       undo_pool_, d.call, std::move(request.residuals));
  }
  if (request.rate_limit != 0) running.limit.emplace(request.rate_limit, called);
  if (d.on_loss == OnLoss::remake) running.memory->keep_no_input();
  running.may_skip = d.skips;
  const auto key = session_->post(std::move(request.posting), monotonic_now());
  if (!key) return refuse(*handle, key.error());
  handle->key = key.value();
  handle->posted = true;
  note_posted(running, handle->key);
  running_[handle->key] = std::move(running);  // before the effects of the post are applied
}

// For all peers: who has cancelled what, and why where its caller did not ask for it.
std::string PeerRuntime::cancelled_text(const std::string& what, const std::string& why) const {
  return "peer " + std::to_string(session_->peer()) + " cancelled " + what + (why.empty() ? "" : ": " + why);
}

void PeerRuntime::cancel(std::shared_ptr<OperationHandle> handle, std::string why) {
  hub_->call([this, handle, why = std::move(why)] {
    if (session_ == nullptr) return;
    give_up_senders([&](const Unsourced& waiting) {
      return waiting.handle == handle
                 ? Error{ErrorCode::cancelled, cancelled_text(describe_recv(waiting.request.posting), why)}
                 : Error{};
    });
    if (handle->posted && running_.contains(handle->key)) abandon(handle->key, why);
  });
}

void PeerRuntime::abandon(const OpKey& key, const std::string& why) {
  const auto* operation = session_->find(key);
  if (operation == nullptr) return;
  const auto what = std::string(name(operation->descriptor.call)) + ", " + describe(key);
  session_->abandon(key, ErrorCode::cancelled, cancelled_text(what, why), monotonic_now());
  drain();
}

std::shared_ptr<Promise<BoundaryResult>> PeerRuntime::enter_boundary(std::uint32_t islands, Duration timeout,
                                                                     std::uint32_t probe_ms) {
  auto promise = std::make_shared<Promise<BoundaryResult>>();
  hub_->call([this, promise, islands, timeout, probe_ms] {
    if (ended_) return promise->set({ended_, false});
    if (session_ == nullptr)
      return promise->set({{ErrorCode::usage, "this peer is not admitted yet"}, false});
    if (!unsourced_.empty())
      return promise->set({{ErrorCode::usage, "update_topology while a recv waits for a sender"}, false});
    auto members = session_->view().ids();
    const auto now = monotonic_now();
    note_speeds(now);
    const auto passed = session_->enter_boundary(islands, timeout, now, probe_ms);
    if (!passed) return promise->set({passed.error(), false});
    note(EventKind::boundary, now, no_peer, 0);
    boundary_ = promise;
    boundary_members_ = std::move(members);
    drain();
  });
  return promise;
}

// The master answers within a round trip; a caller that wants to go is not kept longer than a second.
void PeerRuntime::leave_boundary(std::shared_ptr<Promise<BoundaryResult>> entered) {
  hub_->call([this, entered] {
    if (session_ == nullptr || boundary_ != entered) return;
    session_->leave_boundary(monotonic_now());
    drain();
  });
  entered->wait_for(second);
}

// ---- shared state ----

void PeerRuntime::show(std::vector<Figure> figures) {
  hub_->call([this, figures = std::move(figures)]() mutable {
    if (session_ != nullptr) session_->show(std::move(figures));
  });
}

std::shared_ptr<StateHandle> PeerRuntime::post_state(Posting posting) {
  auto handle = std::make_shared<StateHandle>();
  {
    const std::lock_guard lock(status_mutex_);
    threads_.insert(this_thread());
  }
  hub_->call([this, handle, posting = std::move(posting)]() mutable {
    const auto refuse = [&](const Error& why) {
      StateEvent event(StateEvent::Kind::done);
      event.result.outcome.error = why;
      handle->events.push(std::move(event));
    };
    if (ended_) return refuse(ended_);
    if (session_ == nullptr) return refuse({ErrorCode::usage, "this peer is not admitted yet"});
    const auto key = session_->post(std::move(posting), monotonic_now());
    if (!key) return refuse(key.error());
    handle->key = key.value();
    handle->posted = true;
    handle->started = monotonic_now();
    note(EventKind::posted, handle->started, handle->key, Call::sync_state);
    states_[handle->key] = handle;
    drain();
  });
  return handle;
}

// The caller may not have heard yet that a new attempt runs: what it asked for in an older one is void.
void PeerRuntime::offer_state(std::shared_ptr<StateHandle> handle, StateOffer offer,
                              std::vector<ServedEntry> served) {
  hub_->call(
      [this, handle, told = handle->told, offer = std::move(offer), served = std::move(served)]() mutable {
        if (!handle->posted || !states_.contains(handle->key) || told != session_->view().id) return;
        handle->served = std::move(served);
        session_->offer_state(handle->key, told, std::move(offer));
        drain();
      });
}

void PeerRuntime::fetch_block(std::shared_ptr<StateHandle> handle, PeerId donor, BlockRequest request,
                              std::uint8_t* to) {
  hub_->call([this, handle, told = handle->told, donor, request, to]() mutable {
    if (!handle->posted || !states_.contains(handle->key) || told != session_->view().id) return;
    request.key = handle->key;
    request.view = told;
    fetches_.push_back({donor, request, to});
    if (links_.up(donor))
      send_fetches(donor);
    else
      session_->want_link(donor, monotonic_now());
    drain();
  });
}

void PeerRuntime::complete_state(std::shared_ptr<StateHandle> handle) {
  hub_->call([this, handle, told = handle->told] {
    if (!handle->posted || !states_.contains(handle->key) || told != session_->view().id) return;
    session_->attempt_complete(handle->key, monotonic_now());
    drain();
  });
}

void PeerRuntime::cancel_state(std::shared_ptr<StateHandle> handle, std::string why) {
  hub_->call([this, handle, why = std::move(why)] {
    if (handle->posted && states_.contains(handle->key)) abandon(handle->key, why);
  });
}

// ---- status and end ----

Error PeerRuntime::not_admitted(Duration waited) {
  const auto asked = std::make_shared<Promise<Error>>();
  hub_->call([this, asked] { asked->set(obstacle()); });
  auto why = asked->wait_for(second) ? asked->get() : Error{ErrorCode::timeout, "nothing is known"};
  why.text = "not admitted within " + in_words(waited) + ": " + why.text;
  return why;
}

PeerStatus PeerRuntime::status(bool with_links) {
  if (with_links && !forked()) {
    auto asked = std::make_shared<Promise<std::map<PeerId, LinkInfo>>>();
    hub_->call([this, asked] {
      auto all = links_.info();
      for (auto& [peer, info] : all) info.transport = name_of_ways(same_host_.ways(peer));
      asked->set(std::move(all));
    });
    if (asked->wait_for(second)) {
      auto links = asked->get();
      const std::lock_guard lock(status_mutex_);
      status_.links = std::move(links);
    }
  }
  const std::lock_guard lock(status_mutex_);
  return status_;
}

void PeerRuntime::leave(Duration timeout) {
  auto left = std::make_shared<Promise<bool>>();
  hub_->call([this, left] {
    end({ErrorCode::closed, "this peer has left the run"});
    left->set(true);
  });
  left->wait_for(timeout);
}

}  // namespace pccl
