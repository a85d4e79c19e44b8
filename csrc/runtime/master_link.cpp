#include "runtime/master_link.hpp"

#include <cerrno>

namespace pccl {

void MasterLink::tick(Instant now) {
  if (connection_ == nullptr && !stopped_ && now >= dial_at_) dial(now);
  if (connection_ != nullptr && now >= handshake_by_)
    connection_->close(
        {ErrorCode::connect, "connected, but no answer came to our greeting: is this the port of a master?"});
}

void MasterLink::dial(Instant now) {
  const auto& address = addresses_[next_address_++ % addresses_.size()];
  dial_at_ = now + redial_every;
  net::SocketOptions options{"system", {}, 5 * second};
  auto socket = net::start_connect(address, options);
  const auto nonce = net::random_nonce();
  if (!socket || !nonce) {
    last_failure_ = socket ? nonce.error() : socket.error();
    return owner_.master_unreachable(last_failure_, false);
  }
  const auto text = address.text() == name_ ? name_ : name_ + " (" + address.text() + ")";
  connection_ = &hub_.add(std::make_unique<net::Connection>(
      std::move(*socket), net::Handshake(net::Side::dialler, protocol_version, secret_, nonce.value()), text,
      *this));
  handshake_by_ = now + handshake_timeout;
  ready_ = false;
  hub_.touch(*connection_);
}

void MasterLink::on_ready(net::Connection& c) {
  ready_ = true;
  handshake_by_ = never;
  c.trust();
  owner_.master_up();
}

bool MasterLink::on_message(net::Connection&, ByteView body) {
  const auto message = wire::decode<ToPeer>(body);
  if (!message) return false;
  owner_.master_message(*message);
  return true;
}

void MasterLink::on_closed(net::Connection& c, const Error& why) {
  hub_.retire(c);
  connection_ = nullptr;
  handshake_by_ = never;
  last_failure_ = why;
  if (c.system_error() == ECONNREFUSED)
    last_failure_.text += "; is the master running there? start it with python -m pccl_py master";
  if (std::exchange(ready_, false)) return owner_.master_down(why);
  const bool hopeless = why.code == ErrorCode::authentication || why.code == ErrorCode::version ||
                        (why.code == ErrorCode::connect && c.system_error() == 0);
  owner_.master_unreachable(Error(last_failure_), hopeless);
}

// What failed last says more than a dial that has just begun anew.
Error MasterLink::obstacle() const {
  if (ready_) return {};
  if (last_failure_ || connection_ == nullptr) return last_failure_;
  const bool connected = net::remote_address(connection_->fd()).family() != 0;
  return {ErrorCode::connect,
          connection_->remote() + (connected ? ": connected, but no answer came to our greeting: is this the "
                                               "port of a master?"
                                             : ": no answer; is the address right, and does a firewall let "
                                               "this through?")};
}

void MasterLink::send(const ToMaster& message) {
  if (connection_ == nullptr) return;
  Bytes body;
  wire::encode(message, body);
  connection_->send_message(body);
  hub_.touch(*connection_);
}

void MasterLink::reconnect(const std::string& why) {
  if (connection_ != nullptr) connection_->close({ErrorCode::master_lost, why});
}

void MasterLink::close_politely() {
  stopped_ = true;
  if (connection_ == nullptr) return;
  ready_ = false;
  connection_->close_when_sent({ErrorCode::closed, "left"});
  hub_.touch(*connection_);
}

}  // namespace pccl
