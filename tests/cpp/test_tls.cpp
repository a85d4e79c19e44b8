// TLS as bytes in, bytes out: who gets through, what arrives, and what a stranger or a meddler can do.
#include <algorithm>

#include "base/rng.hpp"
#include "check.hpp"
#include "net/tls.hpp"

namespace pccl::net {
namespace {

Tls::Key key(std::uint8_t value) {
  Tls::Key all;
  all.fill(value);
  return all;
}

Bytes random_bytes(Rng& rng, std::size_t size) {
  Bytes data(size);
  for (auto& byte : data) byte = static_cast<std::uint8_t>(rng.next());
  return data;
}

struct End {
  std::unique_ptr<Tls> tls;
  Error error;
  Bytes heard;

  End(Side side, std::uint8_t key_value) {
    auto made = Tls::create(side, key(key_value));
    REQUIRE(made);
    tls = std::move(*made);
  }
  // Everything that there is, in parts of any size.
  void go_on(std::size_t part_bytes = 5000) {
    if (!error && !tls->done()) {
      const auto done = tls->handshake();
      if (!done) error = done.error();
    }
    for (std::size_t got = 1; got != 0 && !error && tls->done();) {
      Bytes first(part_bytes), second(3);
      const iovec parts[] = {{first.data(), first.size()}, {second.data(), second.size()}};
      const auto opened = tls->open(parts, 2);
      if (!opened) {
        error = opened.error();
        return;
      }
      got = opened.value();
      const auto of_first = std::min(got, first.size());
      heard.insert(heard.end(), first.begin(), first.begin() + std::ptrdiff_t(of_first));
      heard.insert(heard.end(), second.begin(), second.begin() + std::ptrdiff_t(got - of_first));
    }
  }
  void give(ByteView bytes, std::size_t piece) {
    while (!bytes.empty() && !error) {
      const auto part = bytes.first(std::min(piece, bytes.size()));
      CHECK_EQ(tls->arrived_now(part), part.size());
      bytes = bytes.subspan(part.size());
      go_on();
    }
  }
  Bytes take() {
    const auto out = tls->output();
    Bytes all(out.begin(), out.end());
    tls->sent(all.size());
    return all;
  }
  // Of several parts, all at once; what is sealed.
  Bytes say(const std::vector<Bytes>& parts) {
    std::vector<iovec> all;
    for (const auto& part : parts) all.push_back({const_cast<std::uint8_t*>(part.data()), part.size()});
    Bytes sealed;
    while (!all.empty()) {
      const auto took = tls->seal(all.data(), int(all.size()));
      REQUIRE(took);
      const auto out = take();
      sealed.insert(sealed.end(), out.begin(), out.end());
      auto left = took.value();
      while (!all.empty() && left >= all.front().iov_len) left -= all.front().iov_len, all.erase(all.begin());
      if (!all.empty())
        all.front() = {static_cast<std::uint8_t*>(all.front().iov_base) + left, all.front().iov_len - left};
    }
    return sealed;
  }
};

void converse(End& a, End& b, std::size_t piece = 1 << 20) {
  a.go_on();
  b.go_on();
  for (bool moved = true; moved;) {
    moved = false;
    for (auto [from, to] : {std::pair{&a, &b}, std::pair{&b, &a}}) {
      const auto out = from->take();
      moved |= !out.empty();
      to->give(out, piece);
    }
  }
}

TEST(the_same_key_on_both_sides) {
  for (const std::size_t piece : {1, 7, 1000, 1 << 20}) {
    End dialler(Side::dialler, 1), acceptor(Side::acceptor, 1);
    converse(dialler, acceptor, piece);
    CHECK(dialler.tls->done() && acceptor.tls->done());
    CHECK(!dialler.error && !acceptor.error);
  }
}

TEST(another_key_is_named_on_both_sides) {
  End dialler(Side::dialler, 1), acceptor(Side::acceptor, 2);
  converse(dialler, acceptor);
  for (const End* end : {&dialler, &acceptor}) {
    CHECK(!end->tls->done());
    CHECK_EQ(end->error.code, ErrorCode::authentication);
    CHECK_EQ(end->error.text, "the two sides were given different secrets");
  }
}

TEST(what_is_said_arrives) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Rng rng(seed);
    End dialler(Side::dialler, 1), acceptor(Side::acceptor, 1);
    converse(dialler, acceptor);
    for (auto [from, to] : {std::pair{&dialler, &acceptor}, std::pair{&acceptor, &dialler}}) {
      std::vector<Bytes> parts;
      Bytes whole;
      for (std::uint64_t i = rng.below(20); i < 20; ++i) {
        parts.push_back(random_bytes(rng, rng.chance(0.5) ? rng.below(100) : rng.below(100'000)));
        whole.insert(whole.end(), parts.back().begin(), parts.back().end());
      }
      const auto sealed = from->say(parts);
      CHECK(whole.size() < 100 || std::ranges::search(sealed, Bytes(whole.end() - 16, whole.end())).empty());
      to->give(sealed, 1 + rng.below(60'000));
      CHECK(!to->error);
      CHECK(to->heard == whole);
    }
  }
}

TEST(full_records_cost_little) {
  Rng rng(1);
  End dialler(Side::dialler, 1), acceptor(Side::acceptor, 1);
  converse(dialler, acceptor);
  const std::size_t chunk = 256u << 10;
  const auto sealed = dialler.say({random_bytes(rng, 56), random_bytes(rng, chunk), random_bytes(rng, 56)});
  CHECK(sealed.size() < chunk + 112 + 22 * 18);
}

TEST(keys_are_renewed_on_the_way) {
  Rng rng(3);
  End dialler(Side::dialler, 1), acceptor(Side::acceptor, 1);
  converse(dialler, acceptor);
  dialler.tls->renew_key_after(50'000);
  acceptor.tls->renew_key_after(20'000);
  for (int i = 0; i < 20; ++i) {
    for (auto [from, to] : {std::pair{&dialler, &acceptor}, std::pair{&acceptor, &dialler}}) {
      const auto data = random_bytes(rng, 100'000);
      to->heard.clear();
      to->give(from->say({data}), 33'333);
      CHECK(to->heard == data);
    }
  }
  CHECK(!dialler.error && !acceptor.error);
}

TEST(a_changed_byte_is_noticed_and_what_came_before_it_is_good) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    Rng rng(seed);
    End dialler(Side::dialler, 1), acceptor(Side::acceptor, 1);
    converse(dialler, acceptor);
    const auto data = random_bytes(rng, 60'000);
    auto sealed = dialler.say({data});
    const auto at = rng.below(sealed.size());
    sealed[at] ^= static_cast<std::uint8_t>(1u << rng.below(8));
    acceptor.give(sealed, 1 + rng.below(60'000));
    CHECK(acceptor.heard.size() < data.size());
    CHECK(std::equal(acceptor.heard.begin(), acceptor.heard.end(), data.begin()));
    // A longer length is waited for; what comes then cannot fit.
    acceptor.give(Bytes(40'000), 40'000);
    CHECK_EQ(acceptor.error.code, ErrorCode::protocol);
  }
}

TEST(a_record_that_is_sent_twice_or_left_out_is_noticed) {
  for (const bool twice : {true, false}) {
    Rng rng(9);
    End dialler(Side::dialler, 1), acceptor(Side::acceptor, 1);
    converse(dialler, acceptor);
    const auto first = dialler.say({random_bytes(rng, 100)}), second = dialler.say({random_bytes(rng, 100)});
    if (twice) acceptor.give(first, 1000);
    acceptor.give(twice ? first : second, 1000);
    CHECK_EQ(acceptor.error.code, ErrorCode::protocol);
    CHECK_EQ(acceptor.heard.size(), twice ? 100u : 0u);
  }
}

TEST(a_mirror_does_not_get_through) {
  End dialler(Side::dialler, 1);
  dialler.go_on();
  dialler.give(dialler.take(), 1000);
  CHECK(dialler.error);
  CHECK(!dialler.tls->done());
}

TEST(a_recorded_start_does_not_get_through) {
  End dialler(Side::dialler, 1), acceptor(Side::acceptor, 1), later(Side::acceptor, 1);
  dialler.go_on();
  auto recorded = dialler.take();
  acceptor.give(recorded, 1000);
  dialler.give(acceptor.take(), 10'000);
  const auto finished = dialler.take();
  later.give(recorded, 1000);  // with the same key, which a greeting of its own would not have
  (void)later.take();
  later.give(finished, 1000);
  CHECK(!later.tls->done());
  CHECK(later.error);
}

TEST(garbage_never_gets_through) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    Rng rng(seed);
    End end(rng.chance(0.5) ? Side::dialler : Side::acceptor, 1);
    auto bytes = random_bytes(rng, rng.below(3000));
    if (end.tls && rng.chance(0.7)) {  // some of it starts as a true one does, and is then changed or cut off
      End true_one(Side::dialler, 1);
      true_one.go_on();
      auto start = true_one.take();
      if (rng.chance(0.7)) start[rng.below(start.size())] ^= static_cast<std::uint8_t>(1 + rng.below(255));
      start.resize(rng.chance(0.5) ? start.size() : rng.below(start.size()));
      bytes.insert(bytes.begin(), start.begin(), start.end());
    }
    end.go_on();
    end.give(bytes, 1 + rng.below(2000));
    CHECK(!end.tls->done());
  }
}

// Messages that never end are refused before they fill any memory.
TEST(who_says_too_much_is_sent_away) {
  End acceptor(Side::acceptor, 1);
  Bytes said;  // the beginning of a ClientHello of 120,000 bytes, in records of 1,000
  for (int i = 0; i < 100; ++i) {
    Bytes record = {0x16, 3, 1, 1000 >> 8, 1000 & 255};
    Bytes body(1000);
    if (i == 0) body[0] = 1, body[1] = 1, body[2] = 0xd4, body[3] = 0xc0;
    record.insert(record.end(), body.begin(), body.end());
    said.insert(said.end(), record.begin(), record.end());
  }
  acceptor.give(ByteView(said).first(7000), 500);
  CHECK(!acceptor.error);
  acceptor.give(ByteView(said).subspan(7000), 500);
  CHECK(acceptor.error);
}

}  // namespace
}  // namespace pccl::net
