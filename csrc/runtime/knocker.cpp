#include "runtime/knocker.hpp"

#include <algorithm>
#include <cerrno>

#include "net/address.hpp"
#include "wire/values.hpp"

namespace pccl {

void Knocker::knock(PeerId peer, std::vector<Address> addresses, Instant now) {
  forget(peer);  // a newer question takes the place of an older one
  const bool askable =
      !addresses.empty() &&
      std::all_of(addresses.begin(), addresses.end(), [](const auto& a) { return net::is_number(a.host); });
  if (!askable) return;
  auto& question = questions_[peer];
  question.addresses = std::move(addresses);
  question.since = now;
  ask(peer, question);
}

void Knocker::ask(PeerId peer, Question& question) {
  net::Connection::Handler& self = *this;
  question.again_at = never;
  question.refused = true;
  for (const auto& address : question.addresses) {
    auto resolved = net::resolve(address, net::Purpose::connect);
    const auto nonce = net::random_nonce();
    auto socket = resolved && nonce ? net::start_connect(resolved->front())
                                    : Result<net::Socket>(Error{ErrorCode::connect, "no such address"});
    if (!socket) return forget(peer);  // one that cannot be asked, and the others' refusals prove nothing
    auto& c = hub_.add(std::make_unique<net::Connection>(
        std::move(*socket), net::Handshake(net::Side::dialler, protocol_version, secret_, nonce.value()),
        net::text_of(address), self));
    question.asked.insert(&c);
    hub_.touch(c);
  }
}

PeerId Knocker::asked_by(const net::Connection& c) const {
  const auto it = std::find_if(questions_.begin(), questions_.end(), [&](const auto& entry) {
    return entry.second.asked.contains(const_cast<net::Connection*>(&c));
  });
  return it == questions_.end() ? no_peer : it->first;
}

void Knocker::forget(PeerId peer) {
  const auto node = questions_.extract(peer);  // first: these closings witness nothing
  if (node.empty()) return;
  for (auto* c : node.mapped().asked) c->close({ErrorCode::closed, "asked enough"});
}

// Somebody answers: it lives, or another process took its port; time will tell.
void Knocker::on_ready(net::Connection& c) { forget(asked_by(c)); }

void Knocker::on_closed(net::Connection& c, const Error&) {
  const auto peer = asked_by(c);
  hub_.retire(c);
  if (peer == no_peer) return;
  auto& question = questions_.at(peer);
  question.asked.erase(&c);
  question.refused &= c.system_error() == ECONNREFUSED;
  if (!question.asked.empty()) return;
  if (!question.refused) {
    question.again_at = monotonic_now() + ask_every;
    return;
  }
  questions_.erase(peer);
  on_refused_(peer);
}

void Knocker::tick(Instant now) {
  std::vector<PeerId> late, again;
  for (const auto& [peer, question] : questions_)
    if (now >= question.since + answer_timeout)
      late.push_back(peer);
    else if (now >= question.again_at)
      again.push_back(peer);
  for (const auto peer : late) forget(peer);
  for (const auto peer : again) ask(peer, questions_.at(peer));
}

Instant Knocker::next_deadline() const {
  auto next = never;
  for (const auto& [peer, question] : questions_)
    next = std::min({next, question.again_at, question.since + answer_timeout});
  return next;
}

void Knocker::close_all() {
  while (!questions_.empty()) forget(questions_.begin()->first);
}

}  // namespace pccl
