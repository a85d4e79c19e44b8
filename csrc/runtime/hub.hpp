// One thread's descriptors: poller, listener, connections, and calls from other threads. Only call() and
// wake() may be used from elsewhere.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "net/connection.hpp"
#include "net/poller.hpp"

namespace pccl {

class Hub {
 public:
  static Result<std::unique_ptr<Hub>> create();

  using OnAccept = std::function<void(net::Accepted)>;
  Error listen(net::Socket listener, net::SocketOptions options, OnAccept on_accept);
  int listener_fd() const { return listener_.fd(); }
  void stop_listening();
  net::Connection& add(std::unique_ptr<net::Connection> connection);
  void touch(net::Connection& connection);   // it has something to send: written at the end of the turn
  void retire(net::Connection& connection);  // from on_closed(): destroyed at the end of the turn

  void stop_queueing();  // the owner's thread has ended: calls run at once, on their caller's
  void call(std::function<void()> function);  // any thread: runs on the owner's, in order
  void turn(Instant until,
            const std::function<Instant()>& clock);  // waits at most until then, handles what came
  void flush();

 private:
  Hub(net::Poller poller, net::Waker waker) : poller_(std::move(poller)), waker_(std::move(waker)) {}
  struct Entry {
    std::unique_ptr<net::Connection> connection;
    net::Interest interest;
    bool dirty = false;
  };
  std::span<const net::Event> wait(Duration timeout);
  void accept_all();
  void run_calls();
  void after_io(std::uint64_t token, bool more);

  static constexpr Duration listener_pause = 100 * millisecond;
  static constexpr std::uint64_t waker_token = 1, listener_token = 2;
  net::Poller poller_;
  net::Waker waker_;
  net::Socket listener_;
  net::SocketOptions listener_options_;
  OnAccept on_accept_;
  Instant listener_paused_until_ = never;
  std::map<std::uint64_t, Entry> entries_;
  std::map<const net::Connection*, std::uint64_t> tokens_;
  std::vector<std::uint64_t> dirty_;
  std::vector<std::uint64_t> busy_;  // stopped at their budget: come back without waiting
  std::vector<std::unique_ptr<net::Connection>> retired_;
  std::uint64_t next_token_ = 16;
  std::mutex mutex_;  // guards calls_ and queueing_
  std::vector<std::function<void()>> calls_;
  bool queueing_ = true;  // guarded by mutex_
};

}  // namespace pccl
