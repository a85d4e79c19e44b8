// The greeting as bytes in, bytes out: who gets through, who does not, what is said about it, and the key.
#include <algorithm>

#include "base/rng.hpp"
#include "check.hpp"
#include "net/handshake.hpp"

namespace pccl::net {
namespace {

ByteView view(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
Bytes bytes(std::string_view text) { return {text.begin(), text.end()}; }

Nonce nonce(std::uint64_t seed) {
  Rng rng(seed);
  Nonce value;
  for (auto& byte : value) byte = static_cast<std::uint8_t>(rng.next());
  return value;
}

// One end, the bytes that it was given and has not taken, and its fate.
struct End {
  Handshake handshake;
  Bytes frames;  // what came behind the handshake
  Error error;

  End(Side side, std::string_view secret, std::uint64_t seed, std::uint16_t version = 1, bool encrypt = true)
      : handshake(side, version, {bytes(secret), encrypt}, nonce(seed)) {}

  void give(ByteView in) {
    if (error) return;
    const auto used = handshake.on_bytes(in);
    if (!used) {
      error = used.error();
    } else {
      frames.insert(frames.end(), in.begin() + static_cast<std::ptrdiff_t>(used.value()), in.end());
    }
  }
  Bytes take(std::size_t bytes_max = 1000) {
    const auto out = handshake.output();
    const auto part = std::min(bytes_max, out.size());
    Bytes taken(part);
    std::copy_n(out.begin(), part, taken.begin());
    handshake.sent(part);
    return taken;
  }
};

// Carries bytes both ways, in pieces, until nobody says anything more.
void converse(End& a, End& b, std::size_t piece = 1000) {
  for (bool moved = true; moved;) {
    moved = false;
    for (auto [from, to] : {std::pair{&a, &b}, std::pair{&b, &a}}) {
      const auto out = from->take(piece);
      if (out.empty()) continue;
      to->give(out);
      moved = true;
    }
  }
}

TEST(both_ends_get_through) {
  for (const char* secret : {"", "a secret",
                             "another one that is much longer than a block of the hash function is, to be "
                             "sure that long ones work as well"}) {
    for (const std::size_t piece : {1, 7, 31, 32, 33, 1000}) {
      for (const bool encrypts : {true, false}) {
        End dialler(Side::dialler, secret, 1, 1, encrypts), acceptor(Side::acceptor, secret, 2, 1, encrypts);
        converse(dialler, acceptor, piece);
        CHECK(dialler.handshake.done() && acceptor.handshake.done());
        CHECK(!dialler.error && !acceptor.error);
        for (const End* end : {&dialler, &acceptor})
          CHECK_EQ(end->handshake.may_send_frames(), *secret == '\0' || !encrypts);
        CHECK(dialler.handshake.key() == acceptor.handshake.key());
      }
    }
  }
}

TEST(without_a_secret_frames_follow_at_once) {
  End dialler(Side::dialler, "", 1), acceptor(Side::acceptor, "", 2);
  CHECK(dialler.handshake.may_send_frames());
  auto out = dialler.take();
  const auto frame = bytes("a frame");
  out.insert(out.end(), frame.begin(), frame.end());
  acceptor.give(out);
  CHECK(acceptor.handshake.done());
  CHECK(acceptor.frames == frame);
}

TEST(what_follows_a_secret_is_nobody_elses) {
  End dialler(Side::dialler, "s", 1), acceptor(Side::acceptor, "s", 2);
  const auto greeting = acceptor.take();
  auto out = dialler.take();
  out.push_back(77);  // the first byte of what comes after
  acceptor.give(out);
  dialler.give(greeting);
  CHECK(acceptor.frames == Bytes{77});
  for (const End* end : {&dialler, &acceptor})
    CHECK(end->handshake.done() && end->handshake.encrypts() && !end->handshake.may_send_frames());
}

TEST(other_secrets_and_other_nonces_make_other_keys) {
  std::vector<Sha256::Digest> keys;
  for (const auto& [secret, a, b] :
       {std::tuple{"one", 1, 2}, std::tuple{"two", 1, 2}, std::tuple{"one", 3, 2}, std::tuple{"one", 1, 3}}) {
    End dialler(Side::dialler, secret, std::uint64_t(a)), acceptor(Side::acceptor, secret, std::uint64_t(b));
    converse(dialler, acceptor);
    CHECK(dialler.handshake.key() == acceptor.handshake.key());
    keys.push_back(dialler.handshake.key());
  }
  std::ranges::sort(keys);
  CHECK(std::ranges::adjacent_find(keys) == keys.end());
}

TEST(a_secret_on_one_side_only) {
  for (const bool dialler_has_it : {true, false}) {
    End dialler(Side::dialler, dialler_has_it ? "s" : "", 1),
        acceptor(Side::acceptor, dialler_has_it ? "" : "s", 2);
    converse(dialler, acceptor);
    const End& with = dialler_has_it ? dialler : acceptor;
    const End& without = dialler_has_it ? acceptor : dialler;
    CHECK_EQ(with.error.code, ErrorCode::authentication);
    CHECK_EQ(without.error.code, ErrorCode::authentication);
    CHECK(with.error.text.find("the other side has none") != std::string::npos);
    CHECK(without.error.text.find("was given none") != std::string::npos);
    CHECK(!dialler.handshake.may_send_frames() && !acceptor.handshake.may_send_frames());
  }
}

TEST(what_a_secret_does_is_the_same_on_both_sides) {
  for (const bool dialler_encrypts : {true, false}) {
    End dialler(Side::dialler, "s", 1, 1, dialler_encrypts),
        acceptor(Side::acceptor, "s", 2, 1, !dialler_encrypts);
    converse(dialler, acceptor);
    const End& encrypts = dialler_encrypts ? dialler : acceptor;
    const End& plain = dialler_encrypts ? acceptor : dialler;
    CHECK_EQ(encrypts.error.code, ErrorCode::authentication);
    CHECK_EQ(plain.error.code, ErrorCode::authentication);
    CHECK(encrypts.error.text.find("the other side wants to go on in plain") != std::string::npos);
    CHECK(plain.error.text.find("this side was told not to") != std::string::npos);
    CHECK(!dialler.handshake.may_send_frames() && !acceptor.handshake.may_send_frames());
  }
}

// The acceptor proves nothing to who has proved nothing.
TEST(proofs_of_other_secrets_are_refused) {
  End dialler(Side::dialler, "one", 1, 1, false), acceptor(Side::acceptor, "two", 2, 1, false);
  converse(dialler, acceptor);
  for (const End* end : {&dialler, &acceptor}) {
    CHECK_EQ(end->error.code, ErrorCode::authentication);
    CHECK_EQ(end->error.text, "the two sides were given different secrets");
    CHECK(!end->handshake.may_send_frames());
  }
}

TEST(versions_are_both_named) {
  End dialler(Side::dialler, "s", 1, 3), acceptor(Side::acceptor, "", 2, 258);
  converse(dialler, acceptor);
  CHECK_EQ(dialler.error.code, ErrorCode::version);
  CHECK_EQ(acceptor.error.code, ErrorCode::version);
  CHECK(dialler.error.text.find("version 258, this one version 3") != std::string::npos);
  CHECK(acceptor.error.text.find("version 3, this one version 258") != std::string::npos);
}

TEST(somebody_else_answers) {
  End dialler(Side::dialler, "s", 1);
  dialler.give(view("HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n"));
  CHECK_EQ(dialler.error.code, ErrorCode::connect);
  CHECK(dialler.error.text.find("\"HTTP/1.1 400 Bad Request\\r\\nServer\"") != std::string::npos);
  End waiting(Side::dialler, "", 1);
  waiting.give(view("S"));  // it may wait for us to go on: one wrong byte is enough
  CHECK_EQ(waiting.error.code, ErrorCode::connect);
  End acceptor(Side::acceptor, "", 1);
  acceptor.give(view(std::string_view("\x16\x03\x01\x02\x00\\\"", 7)));
  CHECK_EQ(acceptor.error.code, ErrorCode::connect);
  CHECK(acceptor.error.text.find("\\x16\\x03\\x01\\x02\\x00") != std::string::npos);
  End late(Side::dialler, "", 1);
  late.give(view("PCCLpy\r"));
  CHECK(!late.error);
  late.give(view("x"));
  CHECK_EQ(late.error.code, ErrorCode::connect);
}

TEST(a_mirror_is_recognized) {
  for (const char* secret : {"", "s"}) {
    for (const Side side : {Side::dialler, Side::acceptor}) {
      End end(side, secret, 1);
      CHECK_EQ(end.handshake.on_end().code, ErrorCode::connect);
      end.give(end.take());
      CHECK(end.error);
      CHECK(!end.handshake.done());
    }
  }
}

// A changed bit of either greeting is refused at once, or by the proofs.
TEST(every_bit_is_bound_into_the_proofs) {
  for (std::size_t bit = 0; bit < 32 * 8; ++bit) {
    for (const bool from_dialler : {true, false}) {
      End dialler(Side::dialler, "s", 1, 1, false), acceptor(Side::acceptor, "s", 2, 1, false);
      auto there = dialler.take(), back = acceptor.take();
      auto& changed = from_dialler ? there : back;
      changed[bit / 8] = static_cast<std::uint8_t>(changed[bit / 8] ^ (1u << (bit % 8)));
      acceptor.give(there);
      dialler.give(back);
      converse(dialler, acceptor);
      CHECK(!dialler.handshake.done() && !acceptor.handshake.done());
      CHECK(!dialler.handshake.may_send_frames() && !acceptor.handshake.may_send_frames());
    }
  }
}

// A changed bit of either greeting is refused at once, or the two sides come to different keys.
TEST(every_bit_is_bound_into_the_key) {
  for (std::size_t bit = 0; bit < 32 * 8; ++bit) {
    for (const bool from_dialler : {true, false}) {
      End dialler(Side::dialler, "s", 1), acceptor(Side::acceptor, "s", 2);
      auto there = dialler.take(), back = acceptor.take();
      auto& changed = from_dialler ? there : back;
      changed[bit / 8] = static_cast<std::uint8_t>(changed[bit / 8] ^ (1u << (bit % 8)));
      acceptor.give(there);
      dialler.give(back);
      const bool both = dialler.handshake.done() && acceptor.handshake.done();
      CHECK(!both || dialler.handshake.key() != acceptor.handshake.key());
    }
  }
}

TEST(garbage_never_crashes) {
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    Rng rng(seed);
    const bool encrypts = rng.chance(0.5);
    End end(rng.chance(0.5) ? Side::dialler : Side::acceptor, "s", seed, 1, encrypts);
    Bytes garbage(rng.below(200));
    for (auto& byte : garbage) byte = static_cast<std::uint8_t>(rng.next());
    // Some of it starts well.
    const auto start = Handshake(rng.chance(0.5) ? Side::dialler : Side::acceptor, 1,
                                 {bytes(rng.chance(0.5) ? "s" : ""), encrypts}, nonce(seed + 1));
    const auto good = std::min<std::size_t>(rng.below(40), std::min(garbage.size(), start.output().size()));
    std::copy_n(start.output().begin(), good, garbage.begin());
    for (std::size_t at = 0; at < garbage.size() && !end.error;) {
      const auto part = std::min<std::size_t>(1 + rng.below(40), garbage.size() - at);
      end.give({garbage.data() + at, part});
      at += part;
    }
    CHECK(good >= 16 || !end.handshake.done());  // behind it lies the nonce
  }
}

TEST(nonces_differ) {
  const auto a = random_nonce(), b = random_nonce();
  REQUIRE(a && b);
  CHECK(a.value() != b.value());
}

}  // namespace
}  // namespace pccl::net
