// One framed stream to one other process: handshake, messages, and payloads that are read into and written
// from the caller's memory. Owned and used by one thread. Callbacks come only out of on_io(), flush() and
// close(); a callback may call anything here. on_closed() is the last thing such a call does, so the owner
// may destroy the connection in it (and only there). Destroying it earlier is silent.
#pragma once
#include <string>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "net/handshake.hpp"
#include "net/inbox.hpp"
#include "net/outbox.hpp"
#include "net/poller.hpp"
#include "net/socket.hpp"
#include "net/stream.hpp"
#include "wire/frame.hpp"

namespace pccl::net {

// What to do with a payload whose header has come.
struct Landing {
  // Memory for all its bytes, until on_payload_end(), discard_incoming() or on_closed(); null: drop it.
  void* to = nullptr;
  bool close = false;  // it breaks the protocol
  bool pause = false;  // not now: reading stops, and after resume() the same payload is offered again
};

class Connection {
 public:
  class Handler {
   public:
    virtual void on_ready(Connection&) = 0;  // greeted, and with a secret: both sides have proved it
    virtual bool on_message(Connection&, ByteView body) = 0;  // false: it breaks the protocol, close
    // A chunk or block begins; `head` is its wire::data_header_bytes, unchecked, `bytes` what follows them.
    virtual Landing on_payload(Connection&, wire::FrameKind, ByteView head, std::size_t bytes) = 0;
    virtual void on_payload_end(Connection&) = 0;  // it is complete; not called for what was dropped
    virtual void on_sent(Connection&, std::uint64_t token) = 0;  // once per payload: the kernel has all of it
    // Exactly once, also after close(). fd() is still open for Poller::remove(); no memory of a caller is
    // used any more. Codes: connect, version, authentication (before on_ready), protocol, peer_lost (the
    // stream ended or broke), or what close() was given.
    virtual void on_closed(Connection&, const Error& why) = 0;

   protected:
    ~Handler() = default;
  };

  static constexpr std::size_t budget_default = 4u << 20;

  // The socket may still be connecting: then on_io() learns the outcome. `remote` names the other side in
  // error texts.
  Connection(Socket socket, Handshake handshake, std::string remote, Handler& handler);
  Connection(const Connection&) = delete;

  // Queue only; flush() or on_io() writes. Frames queued before on_ready() wait for it where there is a
  // secret. After the connection has closed they are dropped. A body over message_bytes_max (or a payload
  // over chunk_bytes_max) is our own mistake: the next flush() closes with ErrorCode::internal.
  void send_message(ByteView body);
  // The payload is borrowed until on_sent(token), detach(token) or on_closed().
  void send_payload(wire::FrameKind kind, ByteView head, const void* payload, std::size_t bytes,
                    std::uint64_t token);
  // The memory of all payloads with this token is not read again, and on_sent(token) does not come: those
  // that have not started are dropped, the rest of one that has is copied and still sent, to keep the
  // framing.
  void detach(std::uint64_t token);

  // The payload being received goes nowhere from here on, and on_payload_end() does not come for it. False:
  // none was.
  bool discard_incoming();
  bool receiving() const { return inbox_.landing(); }

  // The other side has said who it is: large messages and payloads are welcome. Before, hello_bytes_max is
  // the limit.
  void trust() { inbox_.trust(); }

  // Reads (if readable) and writes until the kernel has no more or the budget, bytes for each direction, is
  // used up. True: it stopped because of the budget, so come back without waiting. The poller must be
  // level-triggered.
  bool on_io(bool readable, bool writable, std::size_t budget = budget_default);
  // Writes what the kernel takes now. Call it after a batch of sends.
  void flush(std::size_t budget = budget_default);

  // Not for longer than SocketOptions::unacked_max: the sender's kernel takes a window that stays closed for
  // death.
  void pause_reading() { paused_ = true; }
  // What has been received already is handled by the next on_io(true, false): call it, the poller may stay
  // silent.
  void resume() { paused_ = false; }

  void close(Error why);  // drops what is queued
  // Sends what is queued, hears no more, and closes when the other side has closed too, so that it surely
  // reads our last words. Call flush() afterwards, go on with on_io(), and set a deadline: close().
  void close_when_sent(Error why);

  bool ready() const { return ready_; }
  bool open() const { return open_; }
  int fd() const { return fd_; }
  const Socket& socket() const { return socket_; }
  const std::string& remote() const { return remote_; }
  int system_error() const { return system_error_; }  // errno that ended it, such as ECONNREFUSED
  Interest interest() const { return {open_ && want_read(), open_ && want_write()}; }
  bool want_read() const { return !paused_ || draining_; }
  bool want_write() const;
  std::size_t queued_frames() const { return outbox_.frames(); }
  std::uint64_t queued_bytes() const { return outbox_.bytes(); }
  // Of these, whose end on_sent() will tell: nobody is woken when a message has left.
  std::size_t borrowed_frames() const { return outbox_.borrowed_frames(); }
  std::uint64_t borrowed_bytes() const { return outbox_.borrowed_bytes(); }
  std::uint64_t bytes_in() const { return stream_.bytes_in(); }  // as they travel
  std::uint64_t bytes_out() const { return stream_.bytes_out(); }
  // Payloads that have come whole, and that the kernel has taken: the n-th of one end is the n-th of the
  // other. In on_payload_end() and on_sent() the one that it is about is counted.
  std::uint64_t payloads_in() const { return inbox_.payloads(); }
  std::uint64_t payloads_out() const { return payloads_out_; }

 private:
  void fail(ErrorCode code, const std::string& text);
  void finish();
  bool read_some(std::size_t budget);
  bool on_read_result(ssize_t got, int code);
  void handle_staged();
  void greet();
  void secure();
  void become_ready();
  bool may_send_frames() const { return stream_.secured() ? ready_ : handshake_.may_send_frames(); }
  void handle(const Inbox::Item& item);
  bool offer(const Inbox::Item& item);
  bool write_some(std::size_t budget);
  void note_sent(std::size_t bytes);
  void notice_hang_up();

  Socket socket_;
  int fd_;  // stays readable in on_closed()
  Stream stream_;
  Handshake handshake_;
  std::string remote_;
  Handler& handler_;
  Inbox inbox_;
  Outbox outbox_;
  Error why_;
  int system_error_ = 0;
  int send_error_ = 0;  // writing failed; the other side's last words may still be there to be read
  bool open_ = true;
  bool busy_ = false;  // inside on_io() or flush(): callbacks may be running
  bool finished_ = false;
  bool ready_ = false;
  bool paused_ = false;
  bool blocked_ = false;   // the kernel takes no more until the poller says so
  bool draining_ = false;  // close_when_sent()
  bool shut_ = false;      // draining, and all has been sent
  std::uint64_t payloads_out_ = 0;
};

}  // namespace pccl::net
