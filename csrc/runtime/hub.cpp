#include "runtime/hub.hpp"

#include <algorithm>

#include "base/spin.hpp"

namespace pccl {

Result<std::unique_ptr<Hub>> Hub::create() {
  auto poller = net::Poller::create();
  if (!poller) return poller.error();
  auto waker = net::Waker::create();
  if (!waker) return waker.error();
  auto hub = std::unique_ptr<Hub>(new Hub(std::move(*poller), std::move(*waker)));
  if (auto error = hub->poller_.add(hub->waker_.fd(), waker_token, {true, false})) return error;
  return hub;
}

Error Hub::listen(net::Socket listener, net::SocketOptions options, OnAccept on_accept) {
  listener_ = std::move(listener);
  listener_options_ = std::move(options);
  on_accept_ = std::move(on_accept);
  return poller_.add(listener_.fd(), listener_token, {true, false});
}

void Hub::stop_listening() {
  if (!listener_) return;
  poller_.remove(listener_.fd());
  listener_.close();
}

net::Connection& Hub::add(std::unique_ptr<net::Connection> connection) {
  const auto token = next_token_++;
  auto& entry = entries_[token];
  auto& added = *connection;  // closing it may take the entry away
  entry.connection = std::move(connection);
  entry.interest = entry.connection->interest();
  tokens_[entry.connection.get()] = token;
  if (auto error = poller_.add(entry.connection->fd(), token, entry.interest)) entry.connection->close(error);
  return added;
}

void Hub::touch(net::Connection& connection) {
  const auto it = tokens_.find(&connection);
  if (it == tokens_.end()) return;
  auto& entry = entries_.at(it->second);
  if (!entry.dirty) dirty_.push_back(it->second);
  entry.dirty = true;
}

void Hub::retire(net::Connection& connection) {
  const auto it = tokens_.find(&connection);
  if (it == tokens_.end()) return;
  poller_.remove(connection.fd());
  auto node = entries_.extract(it->second);
  tokens_.erase(it);
  retired_.push_back(std::move(node.mapped().connection));
}

void Hub::call(std::function<void()> function) {
  {
    const std::lock_guard lock(mutex_);
    if (queueing_) {
      calls_.push_back(std::move(function));
      waker_.signal();
      return;
    }
  }
  function();
}

void Hub::stop_queueing() {
  {
    const std::lock_guard lock(mutex_);
    queueing_ = false;
  }
  run_calls();
}

void Hub::run_calls() {
  std::vector<std::function<void()>> calls;
  {
    const std::lock_guard lock(mutex_);
    calls.swap(calls_);
  }
  for (auto& function : calls) function();
}

void Hub::accept_all() {
  for (int i = 0; i < 64; ++i) {
    auto accepted = net::accept_from(listener_, listener_options_);
    if (!accepted) {  // out of descriptors or memory: the poller would report the listener for ever
      poller_.modify(listener_.fd(), listener_token, {false, false});
      listener_paused_until_ = monotonic_now() + listener_pause;
      return;
    }
    if (!*accepted) return;
    on_accept_(std::move(**accepted));
  }
}

void Hub::after_io(std::uint64_t token, bool more) {
  const auto it = entries_.find(token);
  if (it == entries_.end()) return;
  if (more) busy_.push_back(token);
  const auto wanted = it->second.connection->interest();
  if (wanted == it->second.interest) return;
  it->second.interest = wanted;
  poller_.modify(it->second.connection->fd(), token, wanted);
}

void Hub::flush() {
  for (int round = 0; round < 8 && !dirty_.empty(); ++round) {
    const auto tokens = std::exchange(dirty_, {});
    for (const auto token : tokens) {
      const auto it = entries_.find(token);
      if (it == entries_.end()) continue;
      it->second.dirty = false;
      it->second.connection->flush();
      after_io(token, false);
    }
  }
}

// What comes within microseconds is not worth falling asleep for.
std::span<const net::Event> Hub::wait(Duration timeout) {
  const Spin spin(std::clamp<Duration>(timeout, 0, Spin::longest));
  do {
    const auto events = poller_.wait(0);
    if (!events.empty()) return events;
  } while (timeout > 0 && spin.again());
  return timeout > 0 ? poller_.wait(timeout) : std::span<const net::Event>();
}

void Hub::turn(Instant until, const std::function<Instant()>& clock) {
  const auto again = std::exchange(busy_, {});
  const auto now = clock();
  until = std::min(until, listener_paused_until_);
  const auto timeout = !again.empty() || !dirty_.empty() ? 0
                       : until == never                  ? never
                                                         : std::max<Duration>(until - now, 0);
  for (const auto& event : wait(timeout)) {
    if (event.token == waker_token) {
      waker_.drain();
      run_calls();
    } else if (event.token == listener_token) {
      accept_all();
    } else if (const auto it = entries_.find(event.token); it != entries_.end()) {
      after_io(event.token, it->second.connection->on_io(event.readable, event.writable));
    }
  }
  for (const auto token : again)
    if (const auto it = entries_.find(token); it != entries_.end())
      after_io(token, it->second.connection->on_io(true, true));
  flush();
  if (listener_ && listener_paused_until_ != never && clock() >= listener_paused_until_) {
    listener_paused_until_ = never;
    poller_.modify(listener_.fd(), listener_token, {true, false});
  }
  retired_.clear();
}

}  // namespace pccl
