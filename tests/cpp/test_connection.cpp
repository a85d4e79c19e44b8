// Frames of every size arrive whole and in order, and memory that was taken back is not touched.
#include <fcntl.h>

#include "connection_fixture.hpp"

namespace pccl::net {
namespace {

TEST(random_frames_both_ways) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    Rng rng(seed);
    const char* secret = rng.chance(0.5) ? "s" : "";
    const bool encrypts = rng.chance(0.5);
    Pair pair(secret, secret, true, encrypts, encrypts);
    const Traffic from_a(seed * 2, 60), from_b(seed * 2 + 1, 60);
    for (std::size_t i = 0; i < 60; ++i) {  // some of it before the handshake
      from_a.send(*pair.a, i);
      from_b.send(*pair.b, i);
      if (rng.chance(0.3)) pair.a->on_io(true, true, 1 + rng.below(100'000));
      if (rng.chance(0.3)) pair.b->on_io(true, true, 1 + rng.below(100'000));
    }
    pair.run(1 + rng.below(200'000));
    CHECK(pair.b_log.frames == from_a.frames);
    CHECK(pair.a_log.frames == from_b.frames);
    CHECK(pair.a_log.sent == from_a.tokens());
    CHECK(pair.b_log.sent == from_b.tokens());
    CHECK_EQ(pair.a_log.ready + pair.b_log.ready, 2);
    CHECK(pair.a_log.closed.empty() && pair.b_log.closed.empty());
    CHECK_EQ(pair.a->bytes_out(), pair.b->bytes_in());
    CHECK_EQ(
        pair.a->queued_frames() + pair.b->queued_frames() + pair.a->queued_bytes() + pair.b->queued_bytes(),
        0);
  }
}

TEST(any_split_points) {
  const Traffic traffic(99, 24);
  Bytes stream;
  for (const auto& [kind, head, content] : traffic.frames) {
    auto body = head;
    body.insert(body.end(), content.begin(), content.end());
    const auto whole = frame(kind, body);
    stream.insert(stream.end(), whole.begin(), whole.end());
  }
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    Rng rng(seed);
    Bare bare;
    bare.greet();
    for (std::size_t at = 0; at < stream.size();) {
      const auto part =
          std::min<std::size_t>(1 + rng.below(rng.chance(0.5) ? 100 : 100'000), stream.size() - at);
      bare.say({stream.data() + at, part});
      at += part;
    }
    bare.connection->on_io(true, false);
    CHECK(bare.log.frames == traffic.frames);
  }
}

TEST(detach_keeps_the_framing_and_the_memory_alone) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Rng rng(seed);
    Pair pair;
    pair.run();
    const auto head = random_bytes(rng, data_header_bytes);
    const auto kept = random_bytes(rng, 100'000);
    auto taken = std::make_unique<Bytes>(random_bytes(rng, 3'000'000));  // more than the socket pair holds
    const Bytes copy = *taken;
    pair.a->send_payload(FrameKind::chunk, head, kept.data(), kept.size(), 1);
    pair.a->send_payload(FrameKind::chunk, head, taken->data(), taken->size(), 2);
    pair.a->send_payload(FrameKind::chunk, head, taken->data(), 5, 2);
    pair.a->send_payload(FrameKind::block, head, kept.data(), 7, 3);
    pair.a->send_payload(FrameKind::chunk, head, taken->data(), 9, 2);
    pair.a->send_message(bytes("the end"));
    const auto started = 100'000 + 2 * 56 + rng.below(60'000);
    while (pair.a->bytes_out() < started) {
      pair.a->flush(started);
      pair.b->on_io(true, false, 1000);
      pair.a->on_io(false, true, 1000);
    }
    pair.a->detach(2);
    taken.reset();  // reading it now is a crash under the address sanitizer
    pair.run();
    REQUIRE(pair.b_log.frames.size() == 4);
    CHECK(pair.b_log.frames[0].content == kept);
    CHECK(pair.b_log.frames[1].content == copy);
    CHECK(pair.b_log.frames[2].content == Bytes(kept.begin(), kept.begin() + 7));
    CHECK(pair.b_log.frames[3].content == bytes("the end"));
    CHECK((pair.a_log.sent == std::vector<std::uint64_t>{1, 3}));
    CHECK_EQ(pair.a->queued_bytes(), 0);
  }
}

TEST(detach_before_anything_went_out_drops_it) {
  Pair pair("s", "s");
  const Bytes head(data_header_bytes), content(10'000);
  for (std::uint64_t token = 0; token < 50; ++token)
    pair.a->send_payload(FrameKind::chunk, head, content.data(), token, token % 3);
  for (const std::uint64_t token : {0, 2, 7}) pair.a->detach(token);
  CHECK_EQ(pair.a->queued_frames(), 17);
  pair.run();
  CHECK_EQ(pair.b_log.frames.size(), 17);
  CHECK_EQ(pair.a_log.sent.size(), 17);
  for (std::size_t i = 0; i < pair.b_log.frames.size(); ++i)
    CHECK_EQ(pair.b_log.frames[i].content.size(), 3 * i + 1);
}

TEST(only_what_wakes_its_sender_counts_as_borrowed) {
  Pair pair("s", "s");
  pair.run();
  const Bytes head(data_header_bytes), content(1000);
  for (int i = 0; i < 9; ++i) pair.a->send_message(content);
  CHECK_EQ(pair.a->borrowed_frames(), 0);
  CHECK_EQ(pair.a->borrowed_bytes(), 0);
  for (std::uint64_t token = 0; token < 3; ++token)
    pair.a->send_payload(FrameKind::chunk, head, content.data(), content.size(), token);
  CHECK_EQ(pair.a->borrowed_frames(), 3);
  CHECK(pair.a->borrowed_bytes() >= 3000);
  pair.a->detach(1);
  CHECK_EQ(pair.a->borrowed_frames(), 2);
  CHECK_EQ(pair.a->queued_frames(), 11);
  pair.run();
  CHECK_EQ(pair.a->borrowed_frames(), 0);
  CHECK_EQ(pair.a->borrowed_bytes(), 0);
  CHECK((pair.a_log.sent == std::vector<std::uint64_t>{0, 2}));
}

TEST(discard_incoming_leaves_the_memory_alone) {
  Bare bare;
  bare.greet();
  Rng rng(5);
  const auto body = random_bytes(rng, data_header_bytes + 300'000);
  const auto whole = frame(FrameKind::chunk, body);
  CHECK(!bare.connection->discard_incoming());
  bare.say(ByteView(whole).first(100'000));
  CHECK(bare.connection->receiving());
  CHECK(bare.connection->discard_incoming());
  CHECK(!bare.connection->discard_incoming());
  CHECK(!bare.connection->receiving());
  bare.log.landing.content = Bytes();  // frees it: writing to it now is a crash under the address sanitizer
  bare.say(ByteView(whole).subspan(100'000));
  bare.say(frame(FrameKind::message, bytes("next")));
  bare.say(whole);
  REQUIRE(bare.log.frames.size() == 2);
  CHECK(bare.log.frames[0].content == bytes("next"));
  CHECK(bare.log.frames[1].content == Bytes(body.begin() + data_header_bytes, body.end()));
}

TEST(a_payload_nobody_wants_is_dropped) {
  Pair pair;
  const Bytes head(data_header_bytes), content(200'000, 7);
  pair.b_log.at_payload = [](Connection&) { return Landing{}; };
  pair.a->send_payload(FrameKind::chunk, head, content.data(), content.size(), 1);
  pair.a->send_payload(FrameKind::chunk, head, content.data(), 0, 2);
  pair.a->send_message(bytes("after"));
  pair.run();
  REQUIRE(pair.b_log.frames.size() == 1);
  CHECK(pair.b_log.frames[0].content == bytes("after"));
}

TEST(pausing_at_a_payload_offers_it_again) {
  Pair pair;
  const Bytes head(data_header_bytes), content(500'000, 7);
  bool refuse = true;
  int offers = 0;
  pair.b_log.at_payload = [&](Connection&) {
    ++offers;
    return refuse ? Landing{nullptr, false, true} : Landing{pair.b_log.landing.content.data()};
  };
  pair.a->send_message(bytes("before"));
  pair.a->send_payload(FrameKind::chunk, head, content.data(), content.size(), 1);
  pair.a->send_message(bytes("after"));
  pair.run();
  CHECK_EQ(offers, 1);
  CHECK_EQ(pair.b_log.frames.size(), 1);
  CHECK(!pair.b->interest().read);
  CHECK(pair.a_log.sent.empty());  // the sender feels it
  refuse = false;
  pair.b->resume();
  pair.run();
  CHECK_EQ(offers, 2);
  REQUIRE(pair.b_log.frames.size() == 3);
  CHECK(pair.b_log.frames[1].content == content);
}

TEST(pausing_between_messages) {
  Pair pair;
  pair.b_log.at_message = [](Connection& connection) { connection.pause_reading(); };
  for (int i = 0; i < 5; ++i) pair.a->send_message(bytes("m"));
  for (std::size_t i = 1; i <= 5; ++i) {
    pair.run();
    CHECK_EQ(pair.b_log.frames.size(), i);
    pair.b->resume();
  }
  pair.b->pause_reading();
  pair.a->close({ErrorCode::closed, "bye"});
  pair.run();  // nobody reads, and yet the hang-up is noticed
  CHECK_EQ(pair.b_log.closed.size(), 1);
}

TEST(callbacks_may_do_anything) {
  Pair pair;
  const Bytes head(data_header_bytes), content(400'000, 9);
  int rounds = 0;
  pair.a_log.at_ready = [&](Connection& c) {
    for (std::uint64_t token = 1; token <= 3; ++token)
      c.send_payload(FrameKind::chunk, head, content.data(), content.size(), token);
    c.flush();
  };
  pair.a_log.at_sent = [&](Connection& c) {
    c.detach(3);
    c.flush();
    c.on_io(true, true);
    if (++rounds < 100) c.send_payload(FrameKind::chunk, head, content.data(), 10, 100);
  };
  pair.b_log.at_payload_end = [](Connection& c) {
    CHECK(!c.discard_incoming());
    c.send_message(ByteView());
    c.flush();
  };
  pair.a_log.at_message = [&](Connection& c) {
    if (rounds >= 100) c.close({ErrorCode::closed, "enough"});
    CHECK(pair.a_log.closed.empty());  // told when the callback has returned
  };
  pair.run();
  CHECK_EQ(rounds, 101);  // two that were under way at the end
  REQUIRE(pair.a_log.closed.size() == 1);
  CHECK_EQ(pair.a_log.closed[0].text, "enough");
  REQUIRE(pair.b_log.closed.size() == 1);
  CHECK_EQ(pair.b_log.closed[0].code, ErrorCode::peer_lost);
}

TEST(closing_inside_every_callback) {
  for (int where = 0; where < 5; ++where) {
    Pair pair;
    const auto close = [](Connection& c) { c.close({ErrorCode::closed, "here"}); };
    if (where == 0) pair.b_log.at_ready = close;
    if (where == 1) pair.b_log.at_message = close;
    if (where == 2) {
      pair.b_log.at_payload = [&](Connection& c) {
        close(c);
        return Landing{pair.b_log.landing.content.data()};
      };
    }
    if (where == 3) pair.b_log.at_payload_end = close;
    if (where == 4) pair.b_log.at_sent = close;
    const Bytes head(data_header_bytes), content(1000);
    pair.a->send_message(content);
    pair.a->send_payload(FrameKind::chunk, head, content.data(), content.size(), 1);
    pair.b->send_payload(FrameKind::chunk, head, content.data(), content.size(), 1);
    pair.b->send_payload(FrameKind::chunk, head, content.data(), content.size(), 2);
    pair.run();
    REQUIRE(pair.b_log.closed.size() == 1);
    CHECK_EQ(pair.b_log.closed[0].text, "here");
    CHECK(pair.b_log.sent.size() <= 2);
    CHECK_EQ(pair.a_log.closed.size(), 1);
    pair.b->close({ErrorCode::closed, "again"});
    pair.b->send_message(content);
    pair.b->flush();
    CHECK_EQ(pair.b->queued_frames(), 0);
    CHECK_EQ(pair.b_log.closed.size(), 1);
  }
}

struct SelfDestroyer : Recorder {
  std::unique_ptr<Connection> connection;
  void on_closed(Connection& c, const Error& why) override {
    CHECK(::fcntl(c.fd(), F_GETFD) >= 0);  // still there for Poller::remove()
    Recorder::on_closed(c, why);
    connection.reset();
  }
};

TEST(the_owner_may_destroy_it_in_on_closed) {
  for (int how = 0; how < 3; ++how) {
    auto [left, right] = socket_pair();
    const int fd = left.fd();
    SelfDestroyer owner;
    owner.connection =
        std::make_unique<Connection>(std::move(left), handshake(Side::dialler), "there", owner);
    right.close();
    if (how == 0) owner.connection->on_io(true, true);
    if (how == 1) owner.connection->close({ErrorCode::closed, "why not"});
    if (how == 2) {
      owner.connection->send_message(Bytes(limits::message_bytes_max + 1));
      owner.connection->flush();
    }
    CHECK(owner.connection == nullptr);
    CHECK_EQ(owner.closed.size(), 1);
    CHECK(::fcntl(fd, F_GETFD) < 0);
  }
}

TEST(last_words_arrive) {
  for (const bool flood : {false, true}) {
    Pair pair;
    pair.run();
    const Bytes chatter(50'000);
    if (flood)  // unread bytes at the closing end would make the kernel drop what it still has to send
      for (int i = 0; i < 20; ++i) pair.a->send_message(chatter);
    pair.a->flush();
    pair.b->send_message(bytes("you are refused"));
    pair.b->close_when_sent({ErrorCode::refused, "told so"});
    pair.a_log.at_message = [](Connection& c) { c.close({ErrorCode::refused, "understood"}); };
    pair.run();
    REQUIRE(pair.a_log.frames.size() == 1);
    CHECK(pair.a_log.frames[0].content == bytes("you are refused"));
    CHECK(pair.b_log.frames.empty());
    REQUIRE(pair.b_log.closed.size() == 1);
    CHECK_EQ(pair.b_log.closed[0].text, "told so");
  }
}

TEST(many_small_frames_in_few_reads) {
  Pair pair;
  pair.run();
  for (int i = 0; i < 2000; ++i) pair.a->send_message(bytes(std::to_string(i)));
  pair.run();
  REQUIRE(pair.b_log.frames.size() == 2000);
  for (int i = 0; i < 2000; ++i)
    CHECK(pair.b_log.frames[static_cast<std::size_t>(i)].content == bytes(std::to_string(i)));
}

TEST(a_socket_that_is_still_connecting) {
  auto local = resolve({"127.0.0.1", 0}, Purpose::listen);
  REQUIRE(local);
  auto listener = listen_on(local->front(), 4);
  REQUIRE(listener);
  const auto address = local_address(listener->fd());
  for (const bool somebody_there : {true, false}) {
    if (!somebody_there) listener->close();
    auto dialled = start_connect(address);
    REQUIRE(dialled);
    Recorder log;
    Connection connection(std::move(*dialled), handshake(Side::dialler), address.text(), log);
    connection.flush();
    auto poller = Poller::create();
    REQUIRE(poller && !poller->add(connection.fd(), 1, {true, true}));
    for (const auto& event : poller->wait(5 * second)) connection.on_io(event.readable, event.writable);
    if (somebody_there) {
      CHECK(log.closed.empty());
      CHECK_EQ(connection.bytes_out(), 32);
    } else {
      REQUIRE(log.closed.size() == 1);
      CHECK_EQ(log.closed[0].code, ErrorCode::connect);
      CHECK_EQ(connection.system_error(), ECONNREFUSED);
      CHECK(log.closed[0].text.find(address.text() + ": ") == 0);
    }
  }
}

}  // namespace
}  // namespace pccl::net
