// Bytes that came in on one connection, cut into frames. Large payloads are read straight into where they
// belong, many small frames out of one read. Pure memory: it hands out where to read to, is told how much
// came, and answers next(). Its input is hostile: lengths are checked before anything is allocated or asked
// for.
#pragma once
#include <sys/uio.h>

#include <array>
#include <memory>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "wire/frame.hpp"

namespace pccl::net {

class Inbox {
 public:
  static constexpr std::size_t staging_bytes = 64u << 10;

  enum class What : std::uint8_t { nothing, message, payload, payload_end, error };
  struct Item {
    What what = What::nothing;
    ByteView body;  // a message's body, or a payload's data header; lives until the next call of the inbox
    wire::FrameKind kind = wire::FrameKind::message;
    std::size_t bytes = 0;  // of the payload
  };

  // From now on large messages and payloads are welcome.
  void trust() { trusted_ = true; }

  // Where the next bytes go: one or two parts. Only after next() said `nothing`.
  int prepare(iovec parts[2]);
  void received(std::size_t bytes);

  // A `payload` must be answered by land() or discard() before next() is called again; else it is told again.
  Item next();
  void land(void* to);  // then next() tells payload_end when it is complete
  void discard();       // nothing is told at its end
  // The payload that is landing goes nowhere from here on. False: none is landing.
  bool stop_landing();
  bool landing() const { return expect_ == Expect::payload; }

  // What has been received and not been understood yet: what a handshake reads before there are frames.
  ByteView staged() const { return {staging_.get() + begin_, end_ - begin_}; }
  void consume(std::size_t bytes) { begin_ += bytes; }
  bool inside_frame() const { return expect_ != Expect::frame || begin_ != end_; }
  std::uint64_t payloads() const { return payloads_; }  // that have come whole, dropped ones as well
  Error error() const;                                  // after `error`

 private:
  enum class Expect : std::uint8_t { frame, payload, nowhere, body };
  Item next_frame();
  Item on_header(const wire::FrameHeader& header);
  Item take_rest();
  Item corrupt();
  void expect_payload(Expect how, void* to);

  std::unique_ptr<std::uint8_t[]> staging_ = std::make_unique_for_overwrite<std::uint8_t[]>(staging_bytes);
  std::size_t begin_ = 0, end_ = 0;
  Expect expect_ = Expect::frame;
  std::uint8_t* to_ = nullptr;  // where the rest of a payload or of a large message goes
  std::size_t rest_ = 0;
  std::size_t payload_bytes_ = 0;          // of the payload that next() has announced
  std::unique_ptr<std::uint8_t[]> large_;  // a message that does not fit the staging
  std::size_t large_bytes_ = 0;
  std::array<std::uint8_t, wire::frame_header_bytes> large_header_{};
  bool corrupt_ = false;
  std::uint64_t payloads_ = 0;
  bool trusted_ = false;
  bool bulk_ = false;  // the last frame was large, so the next one may be: read its header only
};

}  // namespace pccl::net
