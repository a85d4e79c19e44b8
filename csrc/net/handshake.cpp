#include "net/handshake.hpp"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

namespace pccl::net {
namespace {

constexpr std::array<std::uint8_t, 8> magic = {'P', 'C', 'C', 'L', 'p', 'y', '\r', '\n'};
constexpr std::size_t version_at = 8, flags_at = 10, zeros_at = 11, nonce_at = 16;
constexpr std::uint8_t flag_secret = 1, flag_acceptor = 2;

std::string printable(ByteView bytes) {
  std::string text;
  for (const auto byte : bytes) {
    constexpr std::string_view hex = "0123456789abcdef";
    if (byte >= ' ' && byte < 0x7f && byte != '\\') {
      text += static_cast<char>(byte);
    } else if (byte == '\r' || byte == '\n') {
      text += byte == '\r' ? "\\r" : "\\n";
    } else {
      text += {'\\', 'x', hex[byte >> 4], hex[byte & 15]};
    }
  }
  return text;
}

}  // namespace

Result<Nonce> random_nonce() {
  Nonce nonce;
  std::size_t have = 0;
  while (have < nonce.size()) {
    const auto got = ::getrandom(nonce.data() + have, nonce.size() - have, 0);
    if (got < 0 && errno != EINTR) return Error{ErrorCode::internal, "the kernel gives no random bytes"};
    if (got > 0) have += static_cast<std::size_t>(got);
  }
  return nonce;
}

Handshake::Handshake(Side side, std::uint16_t version, Bytes secret, const Nonce& nonce)
    : side_(side), secret_(std::move(secret)) {
  std::ranges::copy(magic, mine_.begin());
  store_little(mine_.data() + version_at, version);
  mine_[flags_at] = static_cast<std::uint8_t>((secret_.empty() ? 0 : flag_secret) |
                                              (side_ == Side::acceptor ? flag_acceptor : 0));
  std::ranges::copy(nonce, mine_.begin() + nonce_at);
}

Result<std::size_t> Handshake::on_bytes(ByteView in) {
  std::size_t used = 0;
  while (used < in.size() && state_ != State::done && state_ != State::failed) {
    const auto part = std::min(block_bytes - in_bytes_, in.size() - used);
    std::copy_n(in.data() + used, part, in_.data() + in_bytes_);
    used += part;
    in_bytes_ += part;
    Error error;
    if (!looks_right()) {
      error = stranger();
    } else if (in_bytes_ == block_bytes) {
      error = on_greeting();
      in_bytes_ = 0;
    }
    if (error) {
      state_ = State::failed;
      return error;
    }
  }
  return used;
}

// As soon as a byte differs: somebody else may wait for us to go on.
bool Handshake::looks_right() const {
  const auto known = std::min(in_bytes_, magic.size());
  return std::equal(magic.begin(), magic.begin() + static_cast<std::ptrdiff_t>(known), in_.begin());
}

Error Handshake::stranger() const {
  const std::string who = side_ == Side::dialler ? "something else than pccl_py answers there: \""
                                                 : "a stranger that is no pccl_py peer called: \"";
  return {ErrorCode::connect, who + printable({in_.data(), in_bytes_}) + "\""};
}

Error Handshake::on_greeting() {
  theirs_ = in_;
  const auto my_version = load_little<std::uint16_t>(mine_.data() + version_at);
  const auto their_version = load_little<std::uint16_t>(theirs_.data() + version_at);
  if (my_version != their_version)
    return {ErrorCode::version, "the other side speaks protocol version " + std::to_string(their_version) +
                                    ", this one version " + std::to_string(my_version) +
                                    "; install the same release of pccl_py on both"};
  if (std::equal(mine_.begin() + nonce_at, mine_.end(), theirs_.begin() + nonce_at))
    return {ErrorCode::connect, "this process is connected to itself: nobody else listens there"};
  const auto flags = theirs_[flags_at];
  const bool zeros =
      std::all_of(theirs_.begin() + zeros_at, theirs_.begin() + nonce_at, [](auto b) { return b == 0; });
  if (!zeros || (flags & ~(flag_secret | flag_acceptor)) != 0 ||
      ((flags & flag_acceptor) != 0) != (side_ == Side::dialler))
    return {ErrorCode::protocol, "the other side's greeting makes no sense"};
  const bool they_have_secret = (flags & flag_secret) != 0;
  if (they_have_secret != !secret_.empty())
    return {ErrorCode::authentication,
            they_have_secret ? "the other side asks for the run's secret, and this side was given none"
                             : "this side was given a secret, and the other side has none"};
  state_ = State::done;
  return {};
}

Sha256::Digest Handshake::key() const {
  constexpr std::string_view label = "pccl_py tls";
  Bytes text(label.begin(), label.end());
  const bool dialler = side_ == Side::dialler;
  for (const Block* block : {dialler ? &mine_ : &theirs_, dialler ? &theirs_ : &mine_})
    text.insert(text.end(), block->begin(), block->end());
  return hmac_sha256(secret_, text);
}

Error Handshake::on_end() const { return {ErrorCode::connect, "the other side hung up without a greeting"}; }

}  // namespace pccl::net
