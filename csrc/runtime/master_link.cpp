#include "runtime/master_link.hpp"

#include <cerrno>
#include <ctime>

namespace pccl {

namespace {
std::string time_of_day() {
  const auto now = std::time(nullptr);
  struct tm parts{};
  localtime_r(&now, &parts);
  char text[16] = {};
  return {text, std::strftime(text, sizeof text, "%H:%M:%S", &parts)};
}
}  // namespace

// A caller that waits shall not have to guess what for.
void MasterLink::say_missing(Instant now) {
  notice_at_ = now + next_notice;
  std::string dialled;
  for (const auto& address : addresses_) dialled += (dialled.empty() ? "" : ", ") + address.text();
  owner_.master_news("no master for " + in_words((now - missing_since_) / second * second) + ", since " +
                     missing_from_ + ": operations wait for their commit; dialling " + dialled +
                     (last_failure_ ? " (" + last_failure_.text + ")" : ""));
}

void MasterLink::say_back() {
  const bool said = missing_since_ != never && notice_at_ > missing_since_ + first_notice;
  if (said)
    owner_.master_news("a master answers again, after " +
                       in_words((monotonic_now() - missing_since_) / second * second));
  missing_since_ = notice_at_ = never;
}

void MasterLink::tick(Instant now) {
  if (now >= notice_at_) say_missing(now);
  if (connection_ == nullptr && !stopped_ && now >= dial_at_) dial(now);
  if (connection_ != nullptr && now >= handshake_by_) {
    unanswered_ = !connected() || addresses_.size() > 1;
    connection_->close(no_answer());
  }
}

bool MasterLink::connected() const { return net::remote_address(connection_->fd()).family() != 0; }

Error MasterLink::no_answer() const {
  return {ErrorCode::connect,
          connection_->remote() + (connected() ? ": connected, but no answer came to our greeting: is this "
                                                 "the port of a master?"
                                               : ": no answer; is the address right, and does a firewall let "
                                                 "this through?")};
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
  handshake_by_ = now + (addresses_.size() > 1 ? handshake_timeout_of_many : handshake_timeout);
  ready_ = false;
  hub_.touch(*connection_);
}

void MasterLink::on_ready(net::Connection& c) {
  ready_ = true;
  handshake_by_ = never;
  c.trust();
  say_back();
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
  if (std::exchange(ready_, false)) {
    missing_since_ = monotonic_now();
    missing_from_ = time_of_day();
    notice_at_ = missing_since_ + first_notice;
    return owner_.master_down(why);
  }
  // A way that is cut may be there again, and behind another address somebody may answer.
  const bool unanswered = std::exchange(unanswered_, false);
  const bool hopeless = why.code == ErrorCode::authentication || why.code == ErrorCode::version ||
                        (why.code == ErrorCode::connect && c.system_error() == 0 && !unanswered);
  owner_.master_unreachable(Error(last_failure_), hopeless);
}

// What failed last says more than a dial that has just begun anew.
Error MasterLink::obstacle() const {
  if (ready_) return {};
  if (last_failure_ || connection_ == nullptr) return last_failure_;
  return no_answer();
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
  notice_at_ = never;
  if (connection_ == nullptr) return;
  ready_ = false;
  connection_->close_when_sent({ErrorCode::closed, "left"});
  hub_.touch(*connection_);
}

}  // namespace pccl
