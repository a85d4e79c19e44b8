// What comes in on a connection: the handshake, then frames, cut into reads at any place.
#include <algorithm>
#include <array>

#include "fuzz/target.hpp"
#include "net/handshake.hpp"
#include "net/inbox.hpp"

namespace pccl::fuzz {
namespace {

using wire::data_header_bytes;
using wire::frame_header_bytes;
using wire::FrameKind;

// ---- headers ----

template <class Header> void same_again(const std::optional<Header>& header, const std::uint8_t* from) {
  if (!header) return;
  std::array<std::uint8_t, data_header_bytes> again{};
  wire::store(*header, again.data());
  HOLDS(std::equal(again.begin(), again.end(), from));
}

void headers(ByteView bytes) {
  std::array<std::uint8_t, data_header_bytes> raw{};
  std::copy_n(bytes.begin(), std::min(bytes.size(), raw.size()), raw.begin());
  same_again(wire::load_data(raw.data()), raw.data());
  same_again(wire::load_block(raw.data()), raw.data());
  if (const auto frame = wire::load_frame(raw.data(), 1000)) HOLDS(frame->body_bytes <= 1000);
}

Bytes some_header(Rng& rng) {
  Bytes raw(data_header_bytes);
  wire::DataHeader header;
  header.view = {1, 2};
  header.key = {Scope::group, 0, {1, 2, 3}};
  header.step = std::uint16_t(rng.below(9));
  header.bytes = 4096;
  wire::store(header, raw.data());
  return raw;
}

// ---- handshake ----
// First byte: side, secret, whether it encrypts, and how long each read is.

void handshake(ByteView bytes) {
  if (bytes.empty()) return;
  const auto how = bytes[0];
  const auto side = (how & 1) != 0 ? net::Side::acceptor : net::Side::dialler;
  const bool encrypts = (how & 4) != 0;
  net::Handshake end(side, 7, {(how & 2) != 0 ? Bytes{'s', 'e', 'c', 'r', 'e', 't'} : Bytes{}, encrypts},
                     net::Nonce{});
  const std::size_t read = 1 + (how >> 3);
  std::size_t begin = 1;
  while (begin < bytes.size()) {
    const auto part = bytes.subspan(begin, std::min(read, bytes.size() - begin));
    const auto taken = end.on_bytes(part);
    HOLDS(end.output().size() <= 64);
    end.sent(end.output().size());
    if (!taken) return HOLDS(!taken.error().text.empty()), void();
    HOLDS(taken.value() <= part.size());
    begin += part.size();
    if (end.done()) break;
  }
  // With a secret a greeting alone opens nothing: what follows has to be TLS, or a proof.
  if ((how & 2) != 0) HOLDS(!end.may_send_frames());
  if (!end.done()) HOLDS(end.on_end().code != ErrorCode::none);
}

Bytes greeting(Rng& rng) {
  const bool secret = rng.chance(0.5), acceptor = rng.chance(0.5), encrypts = rng.chance(0.5);
  const net::Handshake other(acceptor ? net::Side::dialler : net::Side::acceptor, 7,
                             {secret ? Bytes{'s', 'e', 'c', 'r', 'e', 't'} : Bytes{}, encrypts},
                             net::Nonce{1});
  Bytes bytes(1 + other.output().size());
  bytes[0] = std::uint8_t((acceptor ? 1 : 0) | (secret ? 2 : 0) | (encrypts ? 4 : 0) | rng.below(32) << 3);
  std::ranges::copy(other.output(), bytes.begin() + 1);
  return bytes;
}

// ---- frames ----
// First byte: trust, landing or discarding, sealed. Second: how long each read is. `sealed`: then come frames
// as kind, length (2) and body, whose checksums are set here; else raw bytes.

Bytes sealed(ByteView from) {
  Bytes stream;
  while (from.size() >= 3) {
    const auto kind = static_cast<FrameKind>(from[0] % 6);
    const std::size_t bytes = std::min<std::size_t>(load_little<std::uint16_t>(&from[1]), from.size() - 3);
    const auto body = from.subspan(3, bytes);
    const bool message = kind == FrameKind::message;
    const auto checked = message ? body : body.first(std::min(bytes, data_header_bytes));
    std::array<std::uint8_t, frame_header_bytes> head{};
    wire::store({std::uint32_t(bytes), kind}, checked, head.data());
    stream.insert(stream.end(), head.begin(), head.end());
    stream.insert(stream.end(), body.begin(), body.end());
    from = from.subspan(3 + bytes);
  }
  return stream;
}

// Everything that the inbox has to tell; false: the connection is over.
bool read_items(net::Inbox& inbox, Bytes& landing, bool lands) {
  for (;;) {
    const auto item = inbox.next();
    switch (item.what) {
      case net::Inbox::What::nothing:
        return true;
      case net::Inbox::What::error:
        HOLDS(inbox.error().code == ErrorCode::protocol);
        return false;
      case net::Inbox::What::message:
        HOLDS(item.body.size() <= limits::message_bytes_max);
        break;
      case net::Inbox::What::payload:
        HOLDS(item.body.size() == data_header_bytes && item.bytes <= limits::chunk_bytes_max);
        landing.resize(item.bytes + 1);
        lands ? inbox.land(landing.data()) : inbox.discard();
        break;
      case net::Inbox::What::payload_end:
        HOLDS(lands);
    }
  }
}

void inbox(ByteView bytes) {
  if (bytes.size() < 2) return;
  const auto how = bytes[0];
  const std::size_t read = 1 + bytes[1] * 7u;
  const auto rest = bytes.subspan(2);
  const auto stream = (how & 4) != 0 ? sealed(rest) : Bytes(rest.begin(), rest.end());
  net::Inbox box;
  if ((how & 1) != 0) box.trust();
  Bytes landing;
  std::size_t begin = 0;
  while (begin < stream.size()) {
    iovec parts[2];
    const auto count = box.prepare(parts);
    std::size_t got = 0;
    for (int part = 0; part < count; ++part) {
      const auto size = std::min({parts[part].iov_len, stream.size() - begin, read - got});
      std::copy_n(stream.begin() + std::ptrdiff_t(begin), size,
                  static_cast<std::uint8_t*>(parts[part].iov_base));
      begin += size;
      got += size;
      if (size < parts[part].iov_len) break;
    }
    if (!HOLDS(got > 0)) return;  // it would never end
    box.received(got);
    if (!read_items(box, landing, (how & 2) != 0)) return;
  }
}

Bytes frames(Rng& rng) {
  Bytes bytes{std::uint8_t(4 | rng.below(4)), std::uint8_t(rng.below(256))};
  for (int i = 0; i < 3; ++i) {
    const auto kind = FrameKind(1 + rng.below(4));
    const std::size_t size = kind == FrameKind::message ? rng.below(40) : data_header_bytes + rng.below(100);
    bytes.push_back(std::uint8_t(kind));
    bytes.push_back(std::uint8_t(size));
    bytes.push_back(0);
    bytes.resize(bytes.size() + size, std::uint8_t(i));
  }
  return bytes;
}

FUZZ_TARGET(headers, headers, some_header);
FUZZ_TARGET(handshake, handshake, greeting);
FUZZ_TARGET(inbox, inbox, frames);

}  // namespace
}  // namespace pccl::fuzz
