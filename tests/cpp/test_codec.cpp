// Every message there and back, and every decoder against bytes that no honest peer sends.
#include <algorithm>
#include <set>

#include "check.hpp"
#include "generate.hpp"
#include "wire/frame.hpp"

namespace pccl::wire {
namespace {

using check::Generate;

template <class Variant, class F> void each_kind(F f) {
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    (f(std::type_identity<std::variant_alternative_t<I, Variant>>{}), ...);
  }(std::make_index_sequence<std::variant_size_v<Variant>>{});
}

template <class F> void each_direction(F f) {
  f(std::type_identity<ToMaster>{});
  f(std::type_identity<ToPeer>{});
  f(std::type_identity<BetweenPeers>{});
}

template <class M> Bytes encoded(const M& message) {
  Bytes bytes;
  encode(message, bytes);
  return bytes;
}

// Written beside the codec on purpose: where everything lies in an encoding, counted by hand.
struct Map {
  struct Choice {
    std::size_t at;
    std::uint8_t first, last;  // the values that one byte may have
  };
  struct Count {
    std::size_t at, max;
  };
  std::size_t at = 1;
  std::vector<Choice> choices;
  std::vector<Count> counts;

  void operator()(bool&) { choices.push_back({at++, 0, 1}); }
  template <std::integral T> void operator()(T&) { at += sizeof(T); }
  void operator()(ErrorCode&) { choices.push_back({at++, 0, error_code_last}); }
  template <class E>
    requires std::is_enum_v<E>
  void operator()(E&) {
    choices.push_back({at++, 1, last_of<E>});
  }
  template <std::size_t N> void operator()(std::array<std::uint8_t, N>&) { at += N; }
  template <HasFields T> void operator()(T& value) { value.fields(*this); }
  void operator()(std::string& value, std::size_t max) {
    counts.push_back({at, max});
    at += 4 + value.size();
  }
  template <class T> void operator()(std::vector<T>& values, std::size_t max) {
    counts.push_back({at, max});
    at += 4;
    for (auto& value : values) (*this)(value);
  }
};

// What a value holds on the heap.
struct Footprint {
  std::size_t bytes = 0;
  template <class T> void operator()(T& value) {
    if constexpr (HasFields<T>) value.fields(*this);
  }
  void operator()(std::string& value, std::size_t) { bytes += value.capacity() > 15 ? value.capacity() : 0; }
  template <class T> void operator()(std::vector<T>& values, std::size_t) {
    bytes += values.capacity() * sizeof(T);
    for (auto& value : values) (*this)(value);
  }
};

// Also what was decoded before a decoder gave up must be small. 16: a list of short elements, grown by
// doubling.
template <class Variant> void check_memory(ByteView bytes) {
  each_kind<Variant>([&]<class M>(std::type_identity<M>) {
    if (bytes.empty() || bytes[0] != std::uint8_t(M::id)) return;
    M message;
    Decoder decoder(bytes.subspan(1));
    message.fields(decoder);
    Footprint footprint;
    message.fields(footprint);
    CHECK(footprint.bytes <= 16 * bytes.size() + 64);
  });
}

// There is one encoding of a value: what a decoder takes is what the encoder would have written.
template <class Variant> bool decodes(ByteView bytes) {
  check_memory<Variant>(bytes);
  const auto message = decode<Variant>(bytes);
  if (!message) return false;
  const auto again = encoded(*message);
  CHECK(std::ranges::equal(again, bytes));
  return true;
}

std::size_t directions_that_take(ByteView bytes) {
  std::size_t taken = 0;
  each_direction([&]<class V>(std::type_identity<V>) { taken += decodes<V>(bytes); });
  return taken;
}

template <class F> void each_random_message(std::uint64_t seeds, F f) {
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    Rng rng(seed);
    Generate generate(rng);
    each_direction([&]<class V>(std::type_identity<V>) {
      each_kind<V>([&]<class M>(std::type_identity<M>) {
        auto message = generate.value<M>();
        f(rng, std::type_identity<V>{}, message);
      });
    });
  }
}

TEST(messages_there_and_back) {
  each_random_message(200, []<class V, class M>(Rng&, std::type_identity<V>, M& message) {
    const auto bytes = encoded(message);
    Map map;
    message.fields(map);
    CHECK_EQ(bytes.size(), map.at);
    CHECK(decodes<V>(bytes));
    CHECK_EQ(directions_that_take(bytes), 1);
    const auto back = decode<V>(bytes);
    REQUIRE(back && std::holds_alternative<M>(*back));
    if constexpr (std::equality_comparable<M>) CHECK(std::get<M>(*back) == message);
  });
}

TEST(values_survive) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    Rng rng(seed);
    Generate generate(rng);
    auto message = generate.value<ViewMessage>();
    const auto bytes = encoded(message);
    const auto view = decode<ToPeer>(bytes);
    REQUIRE(view.has_value());
    CHECK(std::get<ViewMessage>(*view).view == message.view);
    CHECK_EQ(std::get<ViewMessage>(*view).why, message.why);
    auto ready = generate.value<Ready>();
    const auto got = decode<BetweenPeers>(encoded(ready));
    REQUIRE(got.has_value());
    CHECK(std::get<Ready>(*got).descriptor == ready.descriptor);
    CHECK(std::get<Ready>(*got).key == ready.key);
    auto commit = generate.value<Commit>();
    const auto verdict = decode<ToPeer>(encoded(commit));
    REQUIRE(verdict.has_value());
    CHECK(std::get<Commit>(*verdict).verdict == commit.verdict);
    CHECK_EQ(std::get<Commit>(*verdict).minimum_seen, commit.minimum_seen);
  }
}

// Written out by hand: peers of different builds must agree on every byte.
TEST(bytes_of_a_message) {
  Done done;
  done.view = {0x01020304, 5};
  done.key = {Scope::pair, 0, {6, 7, 8}, 9, 0x0a00000000};
  done.verdicts_seen = 0x1122334455667788;
  const Bytes expected{5,                                                          // id
                       4,    3,    2,    1,    5,    0,    0,    0,                // view
                       3,    0,    0,    0,    0,                                  // scope, group
                       6,    0,    0,    0,    7,    0,    0,    0,   8, 0, 0, 0,  // tag
                       9,    0,    0,    0,    0,    0,    0,    0,                // from
                       0,    0,    0,    0,    0x0a, 0,    0,    0,                // to
                       0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
  CHECK_EQ(encoded(done), expected);
  Refused refused{ErrorCode::version, "no"};
  CHECK_EQ(encoded(refused), (Bytes{33, 4, 2, 0, 0, 0, 'n', 'o'}));
}

TEST(cut_and_prolonged) {
  each_random_message(12, []<class V, class M>(Rng& rng, std::type_identity<V>, M& message) {
    auto bytes = encoded(message);
    const auto cuts = std::min<std::size_t>(bytes.size(), 300);
    for (std::size_t i = 0; i < cuts; ++i) {
      const auto cut = cuts == bytes.size() ? i : rng.below(bytes.size());
      CHECK(!decodes<V>(ByteView(bytes).first(cut)));
    }
    bytes.push_back(std::uint8_t(rng.next()));
    CHECK(!decodes<V>(bytes));
    bytes.resize(bytes.size() + rng.below(100));
    CHECK(!decodes<V>(bytes));
  });
}

TEST(choices_out_of_range) {
  each_random_message(20, []<class V, class M>(Rng& rng, std::type_identity<V>, M& message) {
    const auto bytes = encoded(message);
    Map map;
    message.fields(map);
    for (const auto& choice : map.choices) {
      auto wrong = bytes;
      CHECK(bytes[choice.at] >= choice.first && bytes[choice.at] <= choice.last);
      for (const int value :
           {int(choice.first) - 1, int(choice.last) + 1, 255, int(choice.last + 1 + rng.below(100))}) {
        if (value < 0) continue;
        wrong[choice.at] = std::uint8_t(value);
        CHECK(!decodes<V>(wrong));
      }
    }
  });
}

TEST(huge_counts) {
  each_random_message(20, []<class V, class M>(Rng&, std::type_identity<V>, M& message) {
    const auto bytes = encoded(message);
    Map map;
    message.fields(map);
    for (const auto& count : map.counts) {
      for (const std::uint64_t value :
           {std::uint64_t{0xffffffff}, std::uint64_t{0x80000000}, std::uint64_t{count.max} + 1}) {
        auto wrong = bytes;
        store_little(wrong.data() + count.at, std::uint32_t(value));
        CHECK(!decodes<V>(wrong));
        wrong.resize(wrong.size() + 5000);  // as many bytes as it likes
        CHECK(!decodes<V>(wrong));
      }
    }
  });
}

TEST(long_lists_in_few_bytes) {
  // The most that a byte can become: lists of the shortest elements, as long as the limits allow.
  View view;
  view.members.resize(20'000);
  for (auto& member : view.members) member.reachable_at.resize(limits::addresses_max);
  CHECK(decodes<ToPeer>(encoded(ViewMessage{view, ""})));
  Ready ready;
  ready.descriptor.tensors.resize(limits::tensors_max);
  CHECK(decodes<BetweenPeers>(encoded(ready)));
  StateOffer offer;
  offer.entries.resize(limits::tensors_max);
  CHECK(decodes<ToMaster>(encoded(offer)));
  Register registration;
  registration.verdicts.resize(limits::records_max);
  registration.open.resize(limits::operations_open_max);
  CHECK(decodes<ToMaster>(encoded(registration)));
}

TEST(texts_are_cut) {
  Refused refused{ErrorCode::refused, std::string(limits::text_bytes_max + 100, 'x')};
  const auto back = decode<ToPeer>(encoded(refused));
  REQUIRE(back.has_value());
  CHECK_EQ(std::get<Refused>(*back).text, std::string(limits::text_bytes_max, 'x'));
}

TEST(flipped_bits) {
  each_random_message(25, []<class V, class M>(Rng& rng, std::type_identity<V>, M& message) {
    const auto bytes = encoded(message);
    for (int i = 0; i < 60; ++i) {
      auto wrong = bytes;
      const auto flips = 1 + rng.below(4);
      for (std::uint64_t f = 0; f < flips; ++f)
        wrong[rng.below(wrong.size())] ^= std::uint8_t(1u << rng.below(8));
      directions_that_take(wrong);
    }
  });
}

TEST(random_bytes) {
  for (std::uint64_t seed = 1; seed <= 20'000; ++seed) {
    Rng rng(seed);
    Bytes bytes(rng.below(200));
    const auto small = rng.chance(0.5);  // counts and choices that may be valid
    for (auto& byte : bytes) byte = std::uint8_t(small && rng.chance(0.8) ? rng.below(3) : rng.next());
    if (!bytes.empty() && rng.chance(0.9)) bytes[0] = std::uint8_t(rng.below(70));
    directions_that_take(bytes);
  }
  CHECK_EQ(directions_that_take({}), 0);
  for (int id = 0; id < 256; ++id) {
    const Bytes alone{std::uint8_t(id)};
    CHECK_EQ(directions_that_take(alone), std::size_t(id == int(MessageId::leave)));
  }
}

TEST(fingerprints) {
  std::set<std::uint64_t> seen;
  Descriptor descriptor;
  for (std::uint64_t seed = 1; seed <= 500; ++seed) {
    Rng rng(seed);
    Generate generate(rng);
    generate.numbers.clear();
    descriptor = generate.value<Descriptor>();
    descriptor.quantization_block = std::uint32_t(seed);  // no two are equal
    CHECK_EQ(fingerprint(descriptor), fingerprint(Descriptor(descriptor)));
    CHECK(seen.insert(fingerprint(descriptor)).second);
  }
}

// ---- frames ----

template <class Header> Header random_header(Rng& rng) {
  Generate generate(rng);
  Header header;
  generate(header.view);
  generate(header.key);
  header.key.from = header.key.to = no_peer;  // the link knows them
  header.bytes = std::uint32_t(rng.below(limits::chunk_bytes_max + 1));
  return header;
}

TEST(headers_there_and_back) {
  std::uint8_t raw[data_header_bytes];
  for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
    Rng rng(seed);
    auto data = random_header<DataHeader>(rng);
    data.fingerprint = std::uint32_t(rng.next());
    data.step = std::uint16_t(rng.next());
    data.attempt = std::uint16_t(rng.next());
    data.chunk = std::uint32_t(rng.next());
    data.checked = rng.chance(0.5);
    data.checksum = std::uint32_t(rng.next());
    store(data, raw);
    CHECK(load_data(raw) == data);
    auto block = random_header<BlockHeader>(rng);
    block.entry = std::uint32_t(rng.next());
    block.hashes = rng.chance(0.5);
    block.offset = rng.next();
    store(block, raw);
    CHECK(load_block(raw) == block);
    FrameHeader frame{std::uint32_t(rng.next()), static_cast<FrameKind>(1 + rng.below(3))};
    const Bytes body(rng.below(100), 7);
    store(frame, body, raw);
    CHECK(intact(raw, body));
    raw[8 + rng.below(4)] ^= 1;
    CHECK(!intact(raw, body));
    const auto loaded = load_frame(raw, frame.body_bytes);
    REQUIRE(loaded.has_value());
    CHECK_EQ(loaded->body_bytes, frame.body_bytes);
    CHECK(loaded->kind == frame.kind);
    if (frame.body_bytes > 0) CHECK(!load_frame(raw, frame.body_bytes - 1));
  }
}

TEST(headers_that_nobody_writes) {
  for (std::uint64_t seed = 1; seed <= 50'000; ++seed) {
    Rng rng(seed);
    std::uint8_t raw[data_header_bytes], again[data_header_bytes];
    const auto zeros = rng.chance(0.7);
    for (auto& byte : raw) byte = std::uint8_t(zeros && rng.chance(0.7) ? rng.below(3) : rng.next());
    if (const auto data = load_data(raw)) {
      CHECK(data->bytes <= limits::chunk_bytes_max);
      store(*data, again);
      CHECK(std::ranges::equal(raw, again));
    }
    if (const auto block = load_block(raw)) {
      CHECK(block->bytes <= limits::chunk_bytes_max);
      store(*block, again);
      CHECK(std::ranges::equal(raw, again));
    }
    if (const auto frame = load_frame(raw, limits::message_bytes_max)) {
      CHECK(frame->body_bytes <= limits::message_bytes_max);
      store(*frame, {}, again);
      CHECK(std::ranges::equal(std::span(raw).first(8), std::span(again).first(8)));
    }
  }
}

TEST(names_for_people) {
  CHECK_EQ(describe(Tag{0, 0, 3}), "call 3");
  CHECK_EQ(describe(Tag{2, 0, 3}), "call 3 since boundary 2");
  CHECK_EQ(describe(OpKey{Scope::group, 4, {0, 8, 1}}), "tag 7 (use 1) of group 4");
  CHECK_EQ(describe(OpKey{Scope::run, 0, {1, 8, 0}}), "tag 7 (use 0 since boundary 1) of the run");
}

}  // namespace
}  // namespace pccl::wire
