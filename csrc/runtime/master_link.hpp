// A peer's control connection: dialled, and dialled again when it breaks. Owned by the I/O thread.
#pragma once
#include "net/address.hpp"
#include "runtime/hub.hpp"
#include "wire/codec.hpp"

namespace pccl {

class MasterLink : public net::Connection::Handler {
 public:
  class Owner {
   public:
    virtual void master_up() = 0;
    virtual void master_message(const ToPeer& message) = 0;
    virtual void master_down(const Error& why) = 0;
    virtual void master_unreachable(const Error& why,
                                    bool hopeless) = 0;     // a dial failed; hopeless: so will the next
    virtual void master_news(const std::string& text) = 0;  // for people, while there is none
   protected:
    ~Owner() = default;
  };

  MasterLink(Hub& hub, Owner& owner, net::Secret secret, std::string name,
             std::vector<net::SocketAddress> addresses)
      : hub_(hub),
        owner_(owner),
        secret_(std::move(secret)),
        name_(std::move(name)),
        addresses_(std::move(addresses)) {}

  void tick(Instant now);
  Instant next_deadline() const {
    return std::min(notice_at_, connection_ == nullptr && !stopped_ ? dial_at_ : handshake_by_);
  }
  void send(const ToMaster& message);
  void reconnect(const std::string& why);
  void close_politely();  // what was sent still goes out
  bool closed() const { return connection_ == nullptr; }
  Error obstacle() const;  // why it is not ready yet, as far as that is known
  net::SocketAddress local() const {
    return connection_ == nullptr ? net::SocketAddress{} : net::local_address(connection_->fd());
  }

  void on_ready(net::Connection& c) override;
  bool on_message(net::Connection& c, ByteView body) override;
  net::Landing on_payload(net::Connection&, wire::FrameKind, ByteView, std::size_t) override {
    return {.close = true};
  }
  void on_payload_end(net::Connection&) override {}
  void on_sent(net::Connection&, std::uint64_t) override {}
  void on_closed(net::Connection& c, const Error& why) override;

 private:
  static constexpr Duration redial_every = 50 * millisecond;
  static constexpr Duration handshake_timeout = 3 * second;
  static constexpr Duration handshake_timeout_of_many = 1 * second;  // a stopped master's port still answers
  static constexpr Duration first_notice = 3 * second, next_notice = 10 * second;
  void dial(Instant now);
  void say_missing(Instant now);
  void say_back();
  bool connected() const;  // our side of connection_
  Error no_answer() const;

  Hub& hub_;
  Owner& owner_;
  net::Secret secret_;
  std::string name_;
  std::vector<net::SocketAddress> addresses_;
  std::size_t next_address_ = 0;
  net::Connection* connection_ = nullptr;
  bool ready_ = false, stopped_ = false;
  bool unanswered_ = false;  // the dial that ends: it may go better the next time
  Error last_failure_;       // of a dial, or of the connection
  Instant dial_at_ = 0, handshake_by_ = never;
  Instant missing_since_ = never, notice_at_ = never;  // the master that was there once
  std::string missing_from_;                           // the time of day
};

}  // namespace pccl
