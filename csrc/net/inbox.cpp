#include "net/inbox.hpp"

#include <algorithm>
#include <cstring>

namespace pccl::net {
namespace {

using wire::data_header_bytes;
using wire::frame_header_bytes;
using wire::FrameKind;

constexpr std::size_t headers_bytes = frame_header_bytes + data_header_bytes;
// Behind a payload only a little is read along: enough for the next headers, so that a payload that follows
// is not copied through the staging.
constexpr std::size_t behind_payload_bytes = 512;
// From here on an own read into place is cheaper than a copy out of the staging.
constexpr std::size_t bulk_bytes_min = 16u << 10;
static_assert(headers_bytes + behind_payload_bytes <= Inbox::staging_bytes);

}  // namespace

int Inbox::prepare(iovec parts[2]) {
  if (expect_ == Expect::payload ||
      expect_ == Expect::body) {  // the staging is empty: take_rest() has used it up
    begin_ = end_ = 0;
    parts[0] = {to_, rest_};
    parts[1] = {staging_.get(), behind_payload_bytes};
    return 2;
  }
  if (begin_ != 0) std::memmove(staging_.get(), staging_.get() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  const bool headers_only = bulk_ && expect_ == Expect::frame && end_ < headers_bytes;
  parts[0] = {staging_.get() + end_, headers_only ? behind_payload_bytes : staging_bytes - end_};
  return 1;
}

void Inbox::received(std::size_t bytes) {
  if (expect_ == Expect::payload || expect_ == Expect::body) {
    const auto direct = std::min(bytes, rest_);
    to_ += direct;
    rest_ -= direct;
    bytes -= direct;
  }
  end_ += bytes;
}

Inbox::Item Inbox::next() { return expect_ == Expect::frame ? next_frame() : take_rest(); }

Inbox::Item Inbox::next_frame() {
  large_.reset();
  if (end_ - begin_ < frame_header_bytes) return {};
  const auto* from = staging_.get() + begin_;
  const auto header = wire::load_frame(from, trusted_ ? limits::message_bytes_max : limits::hello_bytes_max);
  return header ? on_header(*header) : Item{What::error, {}, {}, 0};
}

Inbox::Item Inbox::on_header(const wire::FrameHeader& header) {
  const auto* body = staging_.get() + begin_ + frame_header_bytes;
  const std::size_t have = end_ - begin_ - frame_header_bytes, bytes = header.body_bytes;
  if (header.kind != FrameKind::message) {
    if (!trusted_ || bytes < data_header_bytes || bytes > data_header_bytes + limits::chunk_bytes_max)
      return {What::error, {}, {}, 0};
    if (have < data_header_bytes) return {};
    if (!wire::intact(body - frame_header_bytes, {body, data_header_bytes})) return corrupt();
    payload_bytes_ = bytes - data_header_bytes;
    return {What::payload, {body, data_header_bytes}, header.kind, payload_bytes_};
  }
  if (bytes <= have) {
    if (!wire::intact(body - frame_header_bytes, {body, bytes})) return corrupt();
    begin_ += frame_header_bytes + bytes;
    bulk_ = false;
    return {What::message, {body, bytes}, header.kind, 0};
  }
  bulk_ = false;
  if (bytes <= staging_bytes - frame_header_bytes) return {};
  large_ = std::make_unique_for_overwrite<std::uint8_t[]>(bytes);
  large_bytes_ = rest_ = bytes;
  to_ = large_.get();
  expect_ = Expect::body;
  std::copy_n(staging_.get() + begin_, frame_header_bytes, large_header_.data());
  begin_ += frame_header_bytes;
  return take_rest();
}

void Inbox::expect_payload(Expect how, void* to) {
  begin_ += headers_bytes;
  expect_ = how;
  to_ = static_cast<std::uint8_t*>(to);
  rest_ = payload_bytes_;
  bulk_ = payload_bytes_ >= bulk_bytes_min;
}

void Inbox::land(void* to) { expect_payload(Expect::payload, to); }
void Inbox::discard() { expect_payload(Expect::nowhere, nullptr); }

bool Inbox::stop_landing() {
  if (expect_ != Expect::payload) return false;
  expect_ = Expect::nowhere;
  to_ = nullptr;
  return true;
}

Inbox::Item Inbox::take_rest() {
  const auto part = std::min(rest_, end_ - begin_);
  if (part != 0 && to_ != nullptr) std::memcpy(to_, staging_.get() + begin_, part);
  if (to_ != nullptr) to_ += part;
  begin_ += part;
  rest_ -= part;
  if (rest_ != 0) return {};
  const auto was = expect_;
  expect_ = Expect::frame;
  if (was != Expect::body) ++payloads_;
  if (was == Expect::payload) return {What::payload_end, {}, {}, 0};
  if (was == Expect::nowhere) return next_frame();
  if (!wire::intact(large_header_.data(), {large_.get(), large_bytes_})) return corrupt();
  return {What::message, {large_.get(), large_bytes_}, FrameKind::message, 0};
}

Inbox::Item Inbox::corrupt() {
  corrupt_ = true;
  return {What::error, {}, {}, 0};
}

Error Inbox::error() const {
  if (corrupt_) return {ErrorCode::protocol, "a frame has changed on its way: its checksum does not fit"};
  const auto* from = staging_.get() + begin_;
  const auto bytes = load_little<std::uint32_t>(from);
  return {ErrorCode::protocol, "the other side broke the protocol: a frame of kind " +
                                   std::to_string(from[4]) + " with " + std::to_string(bytes) + " bytes" +
                                   (trusted_ ? "" : " before it said who it is")};
}

}  // namespace pccl::net
