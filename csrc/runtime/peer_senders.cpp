// A recv from whoever sends first: it waits here, and is posted when a sender has announced its message.
#include <algorithm>

#include "runtime/peer_runtime.hpp"

namespace pccl {

void PeerRuntime::await_sender(std::shared_ptr<OperationHandle> handle, PostRequest request, Instant called) {
  const auto refuse = [&](Error why) { handle->result.set({{std::move(why), {}, 0, 0}, 0, 0, 0, 0}); };
  if (ended_) return refuse(ended_);
  if (session_ == nullptr || session_->stage() != Session::Stage::member)
    return refuse({ErrorCode::usage, "this peer is not admitted yet"});
  if (session_->at_boundary())
    return refuse({ErrorCode::usage, "an operation while another thread is in update_topology"});
  if (unsourced_.size() >= limits::operations_open_max)
    return refuse({ErrorCode::usage, "too many operations in flight: wait for some"});
  const auto timeout = request.posting.timeout;
  Unsourced waiting{std::move(handle), std::move(request), called,
                    timeout == never ? never : called + timeout,
                    session_->view().group_members(session_->identity().group)};
  unsourced_.push_back(std::move(waiting));
}

// A message goes to the first recv that may take it, in the order of the calls.
bool PeerRuntime::must_await_sender(const Posting& posting) const {
  if (posting.scope != Scope::pair || session_ == nullptr || posting.to != session_->peer()) return false;
  return posting.from == no_peer ||
         std::any_of(unsourced_.begin(), unsourced_.end(),
                     [&](const auto& waiting) { return waiting.request.posting.name == posting.name; });
}

std::optional<PeerId> PeerRuntime::sender_for(std::size_t index) const {
  const auto& posting = unsourced_[index].request.posting;
  const auto before = unsourced_.begin() + std::ptrdiff_t(index);
  const bool first = std::none_of(unsourced_.begin(), before, [&](const auto& waiting) {
    return waiting.request.posting.name == posting.name;
  });
  if (posting.from != no_peer && first) return posting.from;
  return exchange_->announced(posting.name, posting.from);
}

// Whether any was posted, or given up.
bool PeerRuntime::find_senders() {
  if (unsourced_.empty() || session_ == nullptr) return false;
  const auto before = unsourced_.size();
  for (std::size_t i = 0; i < unsourced_.size();) {
    const auto from = sender_for(i);
    if (!from) {
      ++i;
      continue;
    }
    auto found = std::move(unsourced_[i]);
    unsourced_.erase(unsourced_.begin() + std::ptrdiff_t(i));
    auto& posting = found.request.posting;
    posting.from = *from;
    if (posting.timeout != never)
      posting.timeout = std::max<Duration>(millisecond, found.deadline - monotonic_now());
    begin(std::move(found.handle), std::move(found.request), found.called);
    i = 0;  // those that came after it may go on now
  }
  const auto now = monotonic_now();
  give_up_senders([&](const Unsourced& waiting) { return hopeless(waiting, now); });
  return unsourced_.size() != before;
}

std::string PeerRuntime::describe_recv(const Posting& posting) {
  const auto whom = posting.from == no_peer ? "any peer" : "peer " + std::to_string(posting.from);
  return "recv from " + whom + (posting.name == 0 ? "" : ", tag " + std::to_string(posting.name - 1));
}

// Who has left might have been the one who was to send; and somebody has to be there.
Error PeerRuntime::hopeless(const Unsourced& waiting, Instant now) const {
  const auto& posting = waiting.request.posting;
  if (now >= waiting.deadline)
    return {ErrorCode::timeout, "peer " + std::to_string(session_->peer()) + " waited " +
                                    std::to_string((now - waiting.called) / millisecond) + " ms in " +
                                    describe_recv(posting) + ": nobody has sent"};
  const auto here = session_->view().group_members(session_->identity().group);
  for (const auto peer : waiting.senders)
    if ((posting.from == no_peer || posting.from == peer) &&
        std::find(here.begin(), here.end(), peer) == here.end())
      return {ErrorCode::peer_lost, "peer " + std::to_string(peer) + " left during " +
                                        describe_recv(posting) +
                                        ", and might have been its sender: call it again"};
  if (here.size() < 2) return {ErrorCode::peer_lost, "nobody is there to send: " + describe_recv(posting)};
  return {};
}

void PeerRuntime::give_up_senders(const std::function<Error(const Unsourced&)>& why) {
  for (std::size_t i = 0; i < unsourced_.size();) {
    auto error = why(unsourced_[i]);
    if (!error) {
      ++i;
      continue;
    }
    const auto handle = std::move(unsourced_[i].handle);
    unsourced_.erase(unsourced_.begin() + std::ptrdiff_t(i));
    handle->result.set({{std::move(error), {}, 0, 0}, 0, 0, 0, 0});
  }
}

}  // namespace pccl
