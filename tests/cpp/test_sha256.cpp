// Known answers: FIPS 180-4 examples, RFC 4231, and the padding's edges against a second way of feeding the
// data.
#include "base/sha256.hpp"
#include "check.hpp"

namespace pccl {
namespace {

ByteView view(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::string hex(ByteView bytes) {
  std::string text;
  for (const auto byte : bytes)
    for (const auto half : {byte >> 4, byte & 15}) text += "0123456789abcdef"[half];
  return text;
}

std::string hash(std::string_view text) { return hex(sha256(view(text))); }
std::string hmac(std::string_view key, std::string_view data) {
  return hex(hmac_sha256(view(key), view(data)));
}

TEST(known_digests) {
  CHECK_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
           "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK_EQ(
      hash("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrs"
           "mnopqrstnopqrstu"),
      "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
  CHECK_EQ(hash(std::string(1'000'000, 'a')),
           "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(known_hmacs) {
  CHECK_EQ(hmac(std::string(20, '\x0b'), "Hi There"),
           "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  CHECK_EQ(hmac("Jefe", "what do ya want for nothing?"),
           "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  CHECK_EQ(hmac(std::string(20, '\xaa'), std::string(50, '\xdd')),
           "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
  std::string key;
  for (char c = 1; c <= 25; ++c) key += c;
  CHECK_EQ(hmac(key, std::string(50, '\xcd')),
           "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b");
  CHECK_EQ(hmac(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First"),
           "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
  CHECK_EQ(hmac(std::string(131, '\xaa'),
                "This is a test using a larger than block-size key and a larger than block-size data. The "
                "key needs to "
                "be hashed before being used by the HMAC algorithm."),
           "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2");
}

TEST(parts_give_the_same_digest_as_the_whole) {
  for (std::size_t size = 0; size <= 200; ++size) {
    const std::string text(size, 'x');
    for (const std::size_t cut : {std::size_t{0}, size / 3, size}) {
      Sha256 parts;
      parts.update(view(text).first(cut)).update(view(text).subspan(cut));
      CHECK_EQ(hex(parts.finish()), hash(text));
    }
  }
}

TEST(comparison_in_constant_time) {
  const auto a = sha256(view("a"));
  auto b = a;
  CHECK(equal_in_constant_time(a, b));
  b[31] ^= 1;
  CHECK(!equal_in_constant_time(a, b));
  CHECK(!equal_in_constant_time(a, ByteView(a).first(31)));
  CHECK(equal_in_constant_time({}, {}));
}

}  // namespace
}  // namespace pccl
