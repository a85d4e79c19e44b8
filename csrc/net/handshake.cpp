#include "net/handshake.hpp"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

namespace pccl::net {
namespace {

constexpr std::array<std::uint8_t, 8> magic = {'P', 'C', 'C', 'L', 'p', 'y', '\r', '\n'};
constexpr std::size_t version_at = 8, flags_at = 10, zeros_at = 11, nonce_at = 16;
constexpr std::uint8_t flag_secret = 1, flag_acceptor = 2, flag_plain = 4;

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

Handshake::Handshake(Side side, std::uint16_t version, Secret secret, const Nonce& nonce)
    : side_(side), secret_(std::move(secret)) {
  std::ranges::copy(magic, mine_.begin());
  store_little(mine_.data() + version_at, version);
  const auto of_secret = secret_.empty() ? 0 : secret_.encrypts ? flag_secret : flag_secret | flag_plain;
  mine_[flags_at] = static_cast<std::uint8_t>(of_secret | (side_ == Side::acceptor ? flag_acceptor : 0));
  std::ranges::copy(nonce, mine_.begin() + nonce_at);
  put(mine_);
}

void Handshake::put(ByteView block) {
  std::ranges::copy(block, out_.begin() + static_cast<std::ptrdiff_t>(out_end_));
  out_end_ += block.size();
}

Result<std::size_t> Handshake::on_bytes(ByteView in) {
  std::size_t used = 0;
  while (used < in.size() && state_ != State::done && state_ != State::failed) {
    const auto part = std::min(block_bytes - in_bytes_, in.size() - used);
    std::copy_n(in.data() + used, part, in_.data() + in_bytes_);
    used += part;
    in_bytes_ += part;
    Error error;
    if (state_ == State::greeting && !looks_right()) {
      error = stranger();
    } else if (in_bytes_ == block_bytes) {
      error = state_ == State::greeting ? on_greeting() : on_proof();
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
  if (auto error = check_flags()) return error;
  state_ = secret_.empty() || secret_.encrypts ? State::done : State::proof;
  if (state_ == State::proof && side_ == Side::dialler) put(proof_of(side_));
  return {};
}

Error Handshake::check_flags() const {
  const auto flags = theirs_[flags_at];
  const bool zeros =
      std::all_of(theirs_.begin() + zeros_at, theirs_.begin() + nonce_at, [](auto b) { return b == 0; });
  const bool they_have_secret = (flags & flag_secret) != 0, they_are_plain = (flags & flag_plain) != 0;
  if (!zeros || (flags & ~(flag_secret | flag_acceptor | flag_plain)) != 0 ||
      ((flags & flag_acceptor) != 0) != (side_ == Side::dialler) || (they_are_plain && !they_have_secret))
    return {ErrorCode::protocol, "the other side's greeting makes no sense"};
  if (they_have_secret != !secret_.empty())
    return {ErrorCode::authentication,
            they_have_secret ? "the other side asks for the run's secret, and this side was given none"
                             : "this side was given a secret, and the other side has none"};
  if (they_have_secret && they_are_plain == secret_.encrypts)
    return {ErrorCode::authentication,
            std::string(they_are_plain ? "this side encrypts, and the other side wants to go on in plain"
                                       : "the other side encrypts, and this side was told not to") +
                ": give the same encrypt= (PCCL_ENCRYPT) to the master and all peers"};
  return {};
}

Error Handshake::on_proof() {
  if (!equal_in_constant_time(in_, proof_of(side_ == Side::dialler ? Side::acceptor : Side::dialler))) {
    if (side_ == Side::acceptor) put(Block{});
    return {ErrorCode::authentication, "the two sides were given different secrets"};
  }
  state_ = State::done;
  if (side_ == Side::acceptor) put(proof_of(side_));
  return {};
}

Sha256::Digest Handshake::digest(std::string_view label) const {
  Bytes text(label.begin(), label.end());
  const bool dialler = side_ == Side::dialler;
  for (const Block* block : {dialler ? &mine_ : &theirs_, dialler ? &theirs_ : &mine_})
    text.insert(text.end(), block->begin(), block->end());
  return hmac_sha256(secret_.bytes, text);
}

Sha256::Digest Handshake::key() const { return digest("pccl_py tls"); }

// Neither one that is sent back nor an old one passes.
Sha256::Digest Handshake::proof_of(Side side) const {
  return digest(side == Side::dialler ? "pccl_py proof\x01" : "pccl_py proof\x02");
}

Error Handshake::on_end() const {
  if (state_ == State::proof)
    return {ErrorCode::peer_lost, "the other side hung up while the secret was being checked"};
  return {ErrorCode::connect, "the other side hung up without a greeting"};
}

}  // namespace pccl::net
