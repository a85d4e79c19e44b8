#include "net/records.hpp"

#include <algorithm>
#include <string_view>

namespace pccl::net {
namespace {

// Numbers of OpenSSL's headers.
constexpr int get_tag = 0x10, set_tag = 0x11, as_before = -1;
constexpr std::uint32_t next_key_bit = 1u << 31;

Sha256::Digest derived(const Sha256::Digest& secret, std::string_view label) {
  return hmac_sha256(secret, {reinterpret_cast<const std::uint8_t*>(label.data()), label.size()});
}

}  // namespace

std::unique_ptr<Records> Records::create(const TlsLibrary& library, const Secret& secret, Way way) {
  auto records = std::unique_ptr<Records>(new Records(library, secret));
  records->context_ = library.EVP_CIPHER_CTX_new();
  if (records->context_ == nullptr || !records->take_key(way == Way::seal ? 1 : 0)) return nullptr;
  return records;
}

Records::~Records() {
  if (context_ != nullptr) library_.EVP_CIPHER_CTX_free(context_);
  for (volatile auto& byte : secret_) byte = 0;
}

bool Records::take_key(int seals) {
  auto key = derived(secret_, "pccl_py key");
  const auto iv = derived(secret_, "pccl_py iv");
  std::copy_n(iv.begin(), iv_.size(), iv_.begin());
  number_ = key_bytes_ = 0;
  const auto* cipher = seals == as_before ? nullptr : library_.EVP_aes_128_gcm();
  const bool fine = library_.EVP_CipherInit_ex(context_, cipher, nullptr, key.data(), iv_.data(), seals) == 1;
  for (volatile auto& byte : key) byte = 0;
  return fine;
}

bool Records::next_key() {
  secret_ = derived(secret_, "pccl_py next");
  return take_key(as_before);
}

// The record's nonce, and its header.
bool Records::begin(const std::uint8_t* header) {
  auto nonce = iv_;
  for (std::size_t i = 0; i < 8; ++i)
    nonce[nonce.size() - 8 + i] = std::uint8_t(nonce[nonce.size() - 8 + i] ^ (number_ >> (8 * i)));
  ++number_;
  int bytes = 0;
  return library_.EVP_CipherInit_ex(context_, nullptr, nullptr, nullptr, nonce.data(), as_before) == 1 &&
         library_.EVP_CipherUpdate(context_, nullptr, &bytes, header, int(header_bytes)) == 1;
}

bool Records::seal(ByteView plain, std::uint8_t* to) {
  auto header = static_cast<std::uint32_t>(plain.size());
  if (key_bytes_ >= key_bytes_max_) {
    if (!next_key()) return false;
    header |= next_key_bit;
  }
  key_bytes_ += plain.size();
  store_little(to, header);
  int bytes = 0;
  auto* sealed = to + header_bytes;
  return begin(to) &&
         library_.EVP_CipherUpdate(context_, sealed, &bytes, plain.data(), int(plain.size())) == 1 &&
         library_.EVP_CipherFinal_ex(context_, sealed + plain.size(), &bytes) == 1 &&
         library_.EVP_CIPHER_CTX_ctrl(context_, get_tag, int(tag_bytes), sealed + plain.size()) == 1;
}

std::size_t Records::plain_bytes(const std::uint8_t* header) {
  const auto bytes = load_little<std::uint32_t>(header) & ~next_key_bit;
  return bytes <= plain_bytes_max ? bytes : 0;
}

bool Records::open(const std::uint8_t* record, std::uint8_t* to) {
  if ((load_little<std::uint32_t>(record) & next_key_bit) != 0 && !next_key()) return false;
  const auto plain = plain_bytes(record);
  const auto* sealed = record + header_bytes;
  std::array<std::uint8_t, tag_bytes> tag;  // OpenSSL wants it where it may write
  std::copy_n(sealed + plain, tag_bytes, tag.begin());
  int bytes = 0;
  return begin(record) && library_.EVP_CipherUpdate(context_, to, &bytes, sealed, int(plain)) == 1 &&
         library_.EVP_CIPHER_CTX_ctrl(context_, set_tag, int(tag_bytes), tag.data()) == 1 &&
         library_.EVP_CipherFinal_ex(context_, to + plain, &bytes) == 1;
}

}  // namespace pccl::net
