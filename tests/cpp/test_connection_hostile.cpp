// Whatever another end sends costs that one connection, and nothing else.
#include "connection_fixture.hpp"

namespace pccl::net {
namespace {

TEST(secrets_are_checked_on_the_wire) {
  struct Case {
    const char *a, *b;
    ErrorCode code;
  };
  for (const auto& [a, b, code] :
       {Case{"s", "s", ErrorCode::none}, Case{"s", "t", ErrorCode::authentication},
        Case{"s", "", ErrorCode::authentication}, Case{"", "s", ErrorCode::authentication}}) {
    Pair pair(a, b);
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
