// Whatever another end sends costs that one connection, and nothing else.
#include "connection_fixture.hpp"

namespace pccl::net {
namespace {

TEST(secrets_are_checked_on_the_wire) {
  struct Case {
    const char *a, *b;
    bool a_encrypts, b_encrypts;
    ErrorCode code;
  };
  constexpr auto refused = ErrorCode::authentication;
  for (const auto& [a, b, a_encrypts, b_encrypts, code] :
       {Case{"s", "s", true, true, ErrorCode::none}, Case{"s", "s", false, false, ErrorCode::none},
        Case{"s", "t", true, true, refused}, Case{"s", "t", false, false, refused},
        Case{"s", "", true, true, refused}, Case{"", "s", true, true, refused},
        Case{"s", "", false, false, refused}, Case{"", "s", false, false, refused},
        Case{"s", "s", true, false, refused}, Case{"s", "s", false, true, refused}}) {
    Pair pair(a, b, true, a_encrypts, b_encrypts);
    pair.a->send_message(bytes("hello"));
    pair.b->send_message(bytes("hello"));
    pair.run();
    const std::size_t through = code == ErrorCode::none ? 1 : 0;
    CHECK_EQ(pair.a_log.frames.size(), through);
    CHECK_EQ(pair.b_log.frames.size(), through);
    CHECK_EQ(pair.a_log.closed.size(), 1 - through);
    CHECK_EQ(pair.b_log.closed.size(), 1 - through);
    for (const auto& closed : {pair.a_log.closed, pair.b_log.closed})
      for (const auto& why : closed) CHECK_EQ(why.code, code);
  }
}

// Who greets as one who knows a secret, and then says something else than TLS, or nothing.
TEST(what_is_not_encrypted_is_refused) {
  for (const auto& words : {frame(FrameKind::message, bytes("a message")), bytes("GET / HTTP/1.1\r\n\r\n")}) {
    Bare bare(true, "s");
    bare.greet("s");
    bare.say(words);
    CHECK(bare.log.frames.empty() && bare.log.ready == 0);
    REQUIRE(bare.log.closed.size() == 1);
    CHECK_EQ(bare.log.closed[0].code, ErrorCode::authentication);
  }
}

// Who meddles with the greetings: the side that encrypts hears of one that does not, whichever way it is
// told.
TEST(nobody_on_the_way_turns_encryption_off) {
  for (const Side side : {Side::dialler, Side::acceptor}) {
    auto [left, right] = socket_pair();
    Recorder log;
    Connection victim(std::move(right), handshake(side, "s"), "victim's other side", log);
    victim.trust();
    victim.send_message(bytes("for those alone who know the secret"));
    victim.on_io(true, true);
    auto other = handshake(side == Side::dialler ? Side::acceptor : Side::dialler, "s");
    Bytes changed(other.output().begin(), other.output().end());
    changed[10] = std::uint8_t(changed[10] | 4);
    REQUIRE(::send(left.fd(), changed.data(), changed.size(), 0) == 32);
    for (int i = 0; i < 3; ++i) victim.on_io(true, true);
    REQUIRE(log.closed.size() == 1 && log.ready == 0);
    CHECK_EQ(log.closed[0].code, ErrorCode::authentication);
    CHECK(log.closed[0].text.find("this side encrypts, and the other side wants to go on in plain") !=
          std::string::npos);
    Bytes heard(1000);  // its greeting, and not a byte of the message
    CHECK_EQ(::recv(left.fd(), heard.data(), heard.size(), 0), 32);
  }
}

// Neither a proof of another connection nor one's own, sent back, opens a connection without encryption.
TEST(old_and_mirrored_proofs_are_refused) {
  Bytes recorded;
  {
    auto dialler = handshake(Side::dialler, "s", false), acceptor = handshake(Side::acceptor, "s", false);
    const Bytes greeting(dialler.output().begin(), dialler.output().end());
    REQUIRE(dialler.on_bytes(acceptor.output()));
    recorded.assign(dialler.output().begin(), dialler.output().end());
    CHECK_EQ(recorded.size(), 64u);
  }
  for (const bool zeros : {false, true}) {
    Bare bare(true, "s", false);
    bare.say(zeros ? Bytes(recorded.begin(), recorded.begin() + 32) : recorded);
    if (zeros) bare.say(Bytes(32));
    bare.say(frame(FrameKind::message, bytes("a message")));
    CHECK(bare.log.frames.empty() && bare.log.ready == 0);
    REQUIRE(bare.log.closed.size() == 1);
    CHECK_EQ(bare.log.closed[0].code, ErrorCode::authentication);
    CHECK_EQ(bare.hear().size(), 64u);  // a greeting, and zeros: nothing to guess the secret by
  }
}

TEST(a_start_that_breaks_off) {
  auto greeting = handshake(Side::dialler, "s");
  Bytes start(greeting.output().begin(), greeting.output().end());
  auto tls = Tls::create(Side::dialler, {});
  REQUIRE(tls && tls.value()->handshake());
  const auto said = tls.value()->output();
  start.insert(start.end(), said.begin(), said.end());
  for (std::size_t cut = 0; cut < start.size(); cut += 7) {
    Bare bare(true, "s");
    bare.say(ByteView(start).first(cut));
    CHECK(bare.log.closed.empty());
    bare.hear();  // closing with unread bytes would be a reset
    bare.wire.close();
    bare.connection->on_io(true, false);
    REQUIRE(bare.log.closed.size() == 1);
    CHECK_EQ(bare.log.closed[0].code, cut < 32 ? ErrorCode::connect : ErrorCode::peer_lost);
    CHECK_EQ(bare.log.ready, 0);
  }
}

// Its first frames were true, and then a byte was changed.
TEST(a_meddler_ends_one_connection_and_delivers_nothing) {
  auto [a_end, a_middle] = socket_pair();
  auto [b_middle, b_end] = socket_pair();
  Recorder a_log, b_log;
  Connection a(std::move(a_end), handshake(Side::dialler, "s"), "b", a_log);
  Connection b(std::move(b_end), handshake(Side::acceptor, "s"), "a", b_log);
  bool meddle = false;
  const auto carry = [&](const Socket& from, const Socket& to) {
    Bytes all(100'000);
    const auto got = ::recv(from.fd(), all.data(), all.size(), 0);
    if (got <= 0) return;
    if (meddle) all[static_cast<std::size_t>(got) / 2] ^= 1;
    CHECK_EQ(::send(to.fd(), all.data(), static_cast<std::size_t>(got), MSG_NOSIGNAL), got);
  };
  const auto turn = [&] {
    a.on_io(true, true);
    carry(a_middle, b_middle);
    b.on_io(true, true);
    carry(b_middle, a_middle);
  };
  a.send_message(bytes("the first"));
  for (int i = 0; i < 6; ++i) turn();
  REQUIRE(b_log.frames.size() == 1);
  meddle = true;
  a.send_message(bytes("the second"));
  turn();
  CHECK_EQ(b_log.frames.size(), 1);
  REQUIRE(b_log.closed.size() == 1);
  CHECK_EQ(b_log.closed[0].code, ErrorCode::protocol);
  CHECK(b_log.closed[0].text.find("changed on its way") != std::string::npos);
}

TEST(strangers_are_kept_short) {
  const Bytes hello(limits::hello_bytes_max), longer(limits::hello_bytes_max + 1);
  Bare stranger(false);
  stranger.greet();
  stranger.say(frame(FrameKind::message, hello));
  CHECK_EQ(stranger.log.frames.size(), 1);
  stranger.say(frame(FrameKind::message, longer));
  REQUIRE(stranger.log.closed.size() == 1);
  CHECK_EQ(stranger.log.closed[0].code, ErrorCode::protocol);
  CHECK(stranger.log.closed[0].text.find("stranger: ") == 0);

  Bare pushy(false);
  pushy.greet();
  pushy.say(frame(FrameKind::chunk, Bytes(data_header_bytes)));
  CHECK_EQ(pushy.log.closed.size(), 1);

  // Trust that is given in on_message() counts for what lies right behind it.
  Bare known(false);
  known.log.at_message = [](Connection& c) { c.trust(); };
  known.greet();
  auto both = frame(FrameKind::message, hello);
  const auto second_one = frame(FrameKind::message, Bytes(100'000));
  both.insert(both.end(), second_one.begin(), second_one.end());
  known.say(both);
  known.connection->on_io(true, false);
  CHECK_EQ(known.log.frames.size(), 2);
}

TEST(nonsense_closes_one_connection) {
  Bytes huge(12), kind(12), flags(12), tiny(12);
  wire::store({0xffffffff, FrameKind::chunk}, {}, huge.data());
  wire::store({4, static_cast<FrameKind>(9)}, {}, kind.data());
  wire::store({4, FrameKind::message}, {}, flags.data());
  flags[5] = 1;
  wire::store({data_header_bytes - 1, FrameKind::block}, {}, tiny.data());
  Bytes large(12);
  wire::store({data_header_bytes + limits::chunk_bytes_max + 1, FrameKind::chunk}, {}, large.data());
  for (const auto& nonsense : {huge, kind, flags, tiny, large}) {
    Bare bare;
    bare.greet();
    bare.say(nonsense);
    REQUIRE(bare.log.closed.size() == 1);
    CHECK_EQ(bare.log.closed[0].code, ErrorCode::protocol);
    CHECK(bare.log.frames.empty());
  }
}

TEST(half_frames_and_other_protocols) {
  Bare half;
  half.greet();
  half.hear();  // closing with unread bytes would be a reset
  half.say(ByteView(frame(FrameKind::message, Bytes(100))).first(50));
  half.wire.close();
  half.connection->on_io(true, false);
  REQUIRE(half.log.closed.size() == 1);
  CHECK_EQ(half.log.closed[0].code, ErrorCode::peer_lost);
  CHECK(half.log.closed[0].text.find("middle of a frame") != std::string::npos);

  Bare silent;
  silent.wire.close();
  silent.connection->on_io(true, false);
  REQUIRE(silent.log.closed.size() == 1);
  CHECK_EQ(silent.log.closed[0].code, ErrorCode::connect);

  Bare web;
  web.say(bytes("GET / HTTP/1.1\r\n\r\n"));
  REQUIRE(web.log.closed.size() == 1);
  CHECK_EQ(web.log.closed[0].code, ErrorCode::connect);
  CHECK(web.log.closed[0].text.find("GET / HTTP/1.1") != std::string::npos);
  CHECK_EQ(web.hear().size(), 32);  // it has our greeting, to say why if it can read it
}

TEST(random_bytes_after_the_greeting) {
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    Rng rng(seed);
    Bare bare(rng.chance(0.5));
    bare.greet();
    for (int i = 0; i < 20 && bare.connection->open(); ++i) {
      auto garbage = random_bytes(rng, rng.below(3000));
      if (rng.chance(0.8)) {  // a frame that looks like one, of a length that may be wrong
        garbage = frame(static_cast<FrameKind>(1 + rng.below(3)), garbage);
        if (rng.chance(0.2)) garbage[rng.below(8)] ^= static_cast<std::uint8_t>(1u << rng.below(8));
      }
      bare.say(garbage);
      if (rng.chance(0.1)) bare.connection->discard_incoming();
    }
    bare.wire.close();
    bare.connection->on_io(true, true);
    CHECK_EQ(bare.log.closed.size(), 1);
    if (!bare.log.closed.empty() && bare.log.ready == 1)
      CHECK(bare.log.closed[0].code == ErrorCode::protocol ||
            bare.log.closed[0].code == ErrorCode::peer_lost);
  }
}

}  // namespace
}  // namespace pccl::net
