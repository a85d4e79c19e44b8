#include "runtime/sends.hpp"

#include <algorithm>

namespace pccl {

Sends::Token Sends::add(Send send) {
  if (free_.empty()) {
    free_.push_back(sends_.size());
    sends_.emplace_back();
  }
  const auto token = free_.back();
  free_.pop_back();
  send.order = ++orders_;
  sends_[token] = std::move(send);
  return token;
}

Sends::Send* Sends::find(Token token) {
  return token < sends_.size() && sends_[token].peer != no_peer ? &sends_[token] : nullptr;
}

// Tokens are used again: the order tells whether it is still the same payload.
bool Sends::is(const Gone& entry) const {
  const auto& send = sends_[entry.token];
  return send.peer != no_peer && send.order == entry.order;
}

void Sends::trim(Lane& lane) {
  while (!lane.gone.empty() && !is(lane.gone.front())) lane.gone.pop_front();
}

void Sends::gone(Token token, std::uint64_t number, std::uint64_t held_bytes) {
  auto& send = sends_[token];
  auto& lane = lanes_[send.stripe];
  trim(lane);
  send.gone = true;
  send.held_bytes = held_bytes;
  lane.held_bytes += held_bytes;
  lane.gone.push_back({number, send.order, token});
}

void Sends::erase(Token token) {
  auto& send = sends_[token];
  const auto lane = lanes_.find(send.stripe);
  if (lane != lanes_.end()) lane->second.held_bytes -= send.held_bytes;
  send = {};
  free_.push_back(token);
}

void Sends::received(Stripe stripe, std::uint64_t payloads, const Visit& visit) {
  const auto it = lanes_.find(stripe);
  if (it == lanes_.end()) return;
  auto& gone = it->second.gone;
  while (!gone.empty() && gone.front().number <= payloads) {
    const auto entry = gone.front();
    gone.pop_front();
    if (!is(entry)) continue;
    visit(entry.token, sends_[entry.token]);
    erase(entry.token);
  }
}

void Sends::erase_if(const std::function<bool(const Send&)>& which, const Visit& visit) {
  for (Token token = 0; token < sends_.size(); ++token) {
    if (sends_[token].peer == no_peer || !which(sends_[token])) continue;
    visit(token, sends_[token]);
    erase(token);
  }
}

std::vector<Sends::Send> Sends::take(Stripe stripe) {
  std::vector<Send> taken;
  erase_if([&](const Send& send) { return send.stripe == stripe; },
           [&](Token, Send& send) { taken.push_back(send); });
  lanes_.erase(stripe);
  std::sort(taken.begin(), taken.end(), [](const Send& a, const Send& b) { return a.order < b.order; });
  return taken;
}

void Sends::closed(Stripe stripe) { lanes_.erase(stripe); }

std::uint64_t Sends::held(Stripe stripe) const {
  const auto it = lanes_.find(stripe);
  return it == lanes_.end() ? 0 : it->second.held_bytes;
}

std::size_t Sends::blocks_to(PeerId peer) const {
  return std::size_t(std::count_if(sends_.begin(), sends_.end(),
                                   [&](const Send& send) { return send.peer == peer && send.block; }));
}

}  // namespace pccl
