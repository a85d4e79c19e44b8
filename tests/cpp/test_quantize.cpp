// The quantization codec: every instruction set bit for bit against quantize_reference.hpp, the layout, and
// what is reported instead of encoded. test_quantize_bounds.cpp has how far off results are.

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "check.hpp"
#include "quantize_reference.hpp"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace {

using namespace pccl;
using namespace pccl::quantize_check;

constexpr std::array<std::size_t, 12> counts{0, 1, 2, 31, 33, 63, 64, 65, 255, 257, 1024, 2491};

std::vector<Level> levels() {
  std::vector<Level> all;
  for (const kernels::Set* set : kernels_check::all_levels()) all.push_back(set->level());
  return all;
}

template <class T> Buffer buffer_of(const std::vector<T>& data, std::size_t offset) {
  Buffer buffer(data.size() * sizeof(T), offset);
  if (!data.empty()) std::memcpy(buffer.data(), data.data(), data.size() * sizeof(T));
  return buffer;
}
template <class T> bool holds(Buffer& buffer, const std::vector<T>& expected) {
  return buffer.untouched_around() &&
         (expected.empty() || std::memcmp(buffer.data(), expected.data(), expected.size() * sizeof(T)) == 0);
}

template <class E> std::vector<E> narrowed(const std::vector<typename E::Acc>& wide) {
  std::vector<E> data;
  for (const auto value : wide) data.push_back(E::from(value));
  return data;
}

// How many buffers of all functions, on all levels, hold something unexpected.
template <class E>
std::size_t wrong_bits(const BlockCode& code, DType element, const std::vector<E>& data, Random& random) {
  using Acc = typename E::Acc;
  const std::size_t count = data.size();
  const Draw draw{random.next(), random.next()};
  const auto expected = expected_of<Acc>(code, widened(data), draw);
  std::vector<Acc> start(count), sums(count), weighted(count);
  for (std::size_t i = 0; i < count; ++i) {
    start[i] = static_cast<Acc>(uniform(random));
    sums[i] = start[i] + expected.values[i];
    weighted[i] = expected.values[i] * Acc(0.3);
  }
  std::size_t wrong = 0;
  for (const Level level : levels()) {
    const auto codec = Codec::at(level, code, element);
    REQUIRE(codec.has_value());
    wrong += codec->encoded_bytes(count) != expected.bytes.size();
    Buffer in = buffer_of(data, random.below(64)), encoded(expected.bytes.size(), random.below(64));
    Buffer out(count * sizeof(E), random.below(64)), added = buffer_of(start, random.below(64));
    Buffer set(count * sizeof(Acc), random.below(64));
    wrong += !codec->encode(in.data(), count, draw, encoded.data());
    wrong += !holds(encoded, expected.bytes) || !holds(in, data);
    codec->decode(encoded.data(), count, out.data());
    wrong += !holds(out, narrowed<E>(expected.values));
    Buffer streamed(count * sizeof(E), random.below(64));
    codec->decode(encoded.data(), count, streamed.data(), true);
    wrong += !holds(streamed, narrowed<E>(expected.values));
    codec->decode_add(encoded.data(), count, added.data());
    wrong += !holds(added, sums);
    codec->decode_set(encoded.data(), count, set.data(), 0.3);
    wrong += !holds(set, weighted);
  }
  return wrong;
}

// Of a float32 code without noise, on the best level.
std::vector<float> there_and_back(const BlockCode& code, const std::vector<float>& data) {
  const auto codec = Codec::of(code, DType::float32);
  Bytes bytes(codec->encoded_bytes(data.size()));
  std::vector<float> back(data.size());
  CHECK(codec->encode(data.data(), data.size(), {}, bytes.data()));
  codec->decode(bytes.data(), data.size(), back.data());
  return back;
}

// Of the calling thread; the others: subnormals are zero, round down, round up.
#if defined(__x86_64__)
std::uint64_t float_modes() { return _mm_getcsr() & ~0x3fu; }
void set_float_modes(std::uint64_t modes) { _mm_setcsr(static_cast<unsigned>(modes)); }
constexpr std::uint64_t other_modes[] = {0x9fc0, 0x3f80, 0x5f80};
#elif defined(__aarch64__)
std::uint64_t float_modes() {
  std::uint64_t modes;
  asm volatile("mrs %0, fpcr" : "=r"(modes) : : "memory");
  return modes;
}
void set_float_modes(std::uint64_t modes) { asm volatile("msr fpcr, %0" : : "r"(modes) : "memory"); }
constexpr std::uint64_t other_modes[] = {1u << 24, 2u << 22, 1u << 22};
#endif

}  // namespace

TEST(codes_that_exist) {
  CHECK(!Codec::of({Quantization::none, 256, false}, DType::float32));
  CHECK(!Codec::of({static_cast<Quantization>(7), 256, false}, DType::float32));
  CHECK(!Codec::of({Quantization::int8, 256, false}, DType::int32));
  for (const std::uint32_t block : {0u, 1u, 48u, 1056u}) {
    CHECK(!Codec::of({Quantization::int8, block, false}, DType::float32));
    CHECK(Codec::of({Quantization::bf16, block, false}, DType::float32));
  }
  const auto bytes = [](Quantization kind, DType element, std::size_t count) {
    return Codec::of(usual(kind), element)->encoded_bytes(count);
  };
  CHECK_EQ(bytes(Quantization::int8, DType::float32, 1000), 1000u + 4 * 4);
  CHECK_EQ(bytes(Quantization::uint8, DType::float16, 1000), 1000u + 4 * 8);
  CHECK_EQ(bytes(Quantization::uint8, DType::float64, 1000), 1000u + 4 * 16);
  CHECK_EQ(bytes(Quantization::int4, DType::float32, 1001), 501u + 16 * 2);
  CHECK_EQ(bytes(Quantization::int4, DType::float64, 64), 32u + 8);
  CHECK_EQ(bytes(Quantization::fp8, DType::bfloat16, 256), 256u + 4);
  CHECK_EQ(bytes(Quantization::bf16, DType::float32, 1000), 2000u);
  CHECK_EQ(bytes(Quantization::int8, DType::float32, 0), 0u);
}

// The layout, by hand.
TEST(bytes_of_small_examples) {
  const auto bytes = [](Quantization kind, const std::vector<float>& data) {
    const auto codec = Codec::of(usual(kind), DType::float32);
    Bytes out(codec->encoded_bytes(data.size()));
    CHECK(codec->encode(data.data(), data.size(), {}, out.data()));
    return out;
  };
  CHECK_EQ(bytes(Quantization::int8, {127, -1, 2.5f, 3.5f}), (Bytes{0, 0, 0x80, 0x3f, 127, 255, 2, 4}));
  CHECK_EQ(bytes(Quantization::uint8, {-1, 254, 1.5f, 0}),
           (Bytes{0, 0, 0x80, 0xbf, 0, 0, 0x80, 0x3f, 0, 255, 2, 1}));
  CHECK_EQ(bytes(Quantization::int4, {7, -1, -7}), (Bytes{0x80, 0x3f, 0xf7, 0x09}));
  CHECK_EQ(bytes(Quantization::fp8, {448, -1, 0x1p-9f, 1.0625f, 1.1875f}),
           (Bytes{0, 0, 0x80, 0x3f, 0x7e, 0xb8, 1, 0x38, 0x3a}));
  CHECK_EQ(bytes(Quantization::bf16, {1, -2}), (Bytes{0x80, 0x3f, 0x00, 0xc0}));
}

TEST(every_level_gives_the_bits_of_the_reference) {
  Random random{3};
  for_floating([&](DType element, auto sample_element) {
    using E = decltype(sample_element);
    for_codes([&](const BlockCode& code) {
      for (const Shape shape : shapes) {
        std::size_t wrong = 0;
        for (const std::size_t count : counts) {
          if (count > 300 && shape != Shape::normal && shape != Shape::huge) continue;
          if (!fits<E>(code.kind, shape)) continue;
          wrong += wrong_bits(code, element, samples<E>(shape, count, random), random);
        }
        if (wrong != 0) CHECK_EQ(text(code, element, shape), std::to_string(wrong) + " wrong");
      }
    });
  });
}

// Beside normal data: elements exactly between two codes, of every kind.
TEST(ties_go_to_even_codes_on_every_level) {
  Random random{4};
  for (const Quantization kind : kinds) {
    std::vector<Own<float>> data{{kind == Quantization::fp8    ? 448.0f
                                  : kind == Quantization::int4 ? 7.0f
                                                               : 127.0f}};
    for (int i = 0; i < 600; ++i) {
      const float half = static_cast<float>(static_cast<int>(random.below(13)) - 6) + 0.5f;
      data.push_back({kind == Quantization::fp8 ? half * 0x1p-9f : half});
    }
    if (kind == Quantization::uint8) data[1].value = -128;
    CHECK_EQ(wrong_bits({kind, 1024, false}, DType::float32, data, random), 0u);
  }
}

TEST(the_same_draw_gives_the_same_bits_and_others_do_not) {
  Random random{8};
  const auto data = samples<Own<float>>(Shape::normal, 1024, random);
  for (const Quantization kind : kinds) {
    const auto codec = Codec::of(usual(kind, true), DType::float32);
    const auto encoded = [&](const Draw& draw) {
      Bytes bytes(codec->encoded_bytes(data.size()));
      CHECK(codec->encode(data.data(), data.size(), draw, bytes.data()));
      return bytes;
    };
    const Bytes one = encoded({9, 4096});
    CHECK(one == encoded({9, 4096}));
    CHECK(one != encoded({10, 4096}));
    CHECK(one != encoded({9, 8192}));
  }
}

// Whole blocks can be encoded apart and joined.
TEST(encodings_of_whole_blocks_join) {
  Random random{9};
  for_codes([&](const BlockCode& code) {
    const std::uint32_t block = code.kind == Quantization::bf16 ? 256 : code.block;
    const std::size_t count = 5 * block + 7, cut = 3 * block;
    const auto data = samples<Half>(Shape::normal, count, random);
    const auto codec = Codec::of(code, DType::float16);
    Bytes whole(codec->encoded_bytes(count)), joined(whole.size());
    CHECK(codec->encode(data.data(), count, {1, 100}, whole.data()));
    CHECK(codec->encode(data.data(), cut, {1, 100}, joined.data()));
    CHECK(codec->encode(data.data() + cut, count - cut, {1, 100 + cut},
                        joined.data() + codec->encoded_bytes(cut)));
    CHECK(whole == joined);
  });
}

TEST(what_is_not_finite_is_reported) {
  for_floating([](DType element, auto sample_element) {
    using E = decltype(sample_element);
    using Limits = std::numeric_limits<typename E::Acc>;
    Random random{10};
    for_codes([&](const BlockCode& code) {
      for (const Level level : levels()) {
        const auto codec = Codec::at(level, code, element);
        auto data = samples<E>(Shape::normal, 301, random);
        Bytes bytes(codec->encoded_bytes(data.size()));
        std::size_t unseen = 0;
        for (const std::size_t at : {0, 1, 31, 64, 255, 256, 299, 300}) {
          const E before = data[at];
          for (const auto bad :
               {Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN(), -Limits::quiet_NaN()}) {
            data[at] = E::from(bad);
            unseen += codec->encode(data.data(), data.size(), {}, bytes.data());
          }
          data[at] = before;
        }
        CHECK_EQ(unseen, 0u);
        CHECK(codec->encode(data.data(), data.size(), {}, bytes.data()));
      }
    });
  });
  const auto codec = Codec::of(usual(Quantization::int8), DType::float16);
  std::vector<float> sums(300, 1.0f);
  Bytes bytes(codec->encoded_bytes(300));
  CHECK(codec->encode_sum(sums.data(), 300, 3, {}, bytes.data(), nullptr));
  sums[299] = std::numeric_limits<float>::infinity();  // sums overflow
  CHECK(!codec->encode_sum(sums.data(), 300, 3, {}, bytes.data(), nullptr));
  const double large = 1e39;  // finite, but no float32
  CHECK(!Codec::of(usual(Quantization::bf16), DType::float64)->encode(&large, 1, {}, bytes.data()));
  CHECK(Codec::of(usual(Quantization::int4), DType::float64)->encode(&large, 1, {}, bytes.data()));
}

TEST(constants_and_extremes_come_back) {
  for (const float value : {0.1f, -0.1f, 3e38f, 0x1p-149f, 0.0f, std::numeric_limits<float>::max()}) {
    const std::vector<float> data(300, value);
    CHECK(there_and_back(usual(Quantization::uint8), data) == data);
  }
  for (const Quantization kind : kinds)
    CHECK(there_and_back(usual(kind), std::vector<float>(300)) == std::vector<float>(300));
  const float largest = std::numeric_limits<float>::max();
  for (const Quantization kind : kinds) {
    for (const bool stochastic : {false, true}) {
      const auto back =
          there_and_back(usual(kind, stochastic), {largest, -largest, 0, largest / 3, 1, -largest});
      for (const float value : back) CHECK(std::isfinite(value));
      CHECK(back[0] >= largest * 0.99f && back[1] <= -largest * 0.99f);
    }
  }
}

TEST(a_sum_is_divided_encoded_and_decoded_in_one_pass) {
  Random random{11};
  for_floating([&](DType element, auto sample_element) {
    using E = decltype(sample_element);
    using Acc = typename E::Acc;
    for_codes([&](const BlockCode& code) {
      for (const std::size_t count : {0, 1, 65, 1025, 9001}) {
        const auto sums = samples<Own<Acc>>(Shape::normal, count, random);
        std::vector<Acc> quotients;
        for (const auto& sum : sums) quotients.push_back(sum.value / Acc(3));
        const Draw draw{random.next(), 512};
        const auto expected = expected_of<Acc>(code, quotients, draw);
        std::size_t wrong = 0;
        for (const Level level : levels()) {
          const auto codec = Codec::at(level, code, element);
          Buffer in = buffer_of(sums, random.below(64)), out(expected.bytes.size(), random.below(64));
          Buffer decoded(count * sizeof(E), random.below(64));
          wrong += !codec->encode_sum(in.data(), count, 3, draw, out.data(), decoded.data());
          wrong += !holds(out, expected.bytes) || !holds(decoded, narrowed<E>(expected.values)) ||
                   !holds(in, sums);
          Buffer streamed(count * sizeof(E), random.below(64));
          wrong += !codec->encode_sum(in.data(), count, 3, draw, out.data(), streamed.data(), true);
          wrong += !holds(out, expected.bytes) || !holds(streamed, narrowed<E>(expected.values));
          if constexpr (sizeof(E) == sizeof(Acc)) {
            wrong += !codec->encode_sum(in.data(), count, 3, draw, out.data(), in.data());
            wrong += !holds(out, expected.bytes) || !holds(in, expected.values);
          }
        }
        CHECK_EQ(wrong, 0u);
      }
    });
  });
}

TEST(the_callers_float_modes_change_nothing) {
  Random random{12};
  const auto data = samples<Own<float>>(Shape::subnormal, 300, random);
  const auto before = float_modes();
  for (const Quantization kind : kinds) {
    for (const auto modes : other_modes) {
      const auto codec = Codec::of(usual(kind), DType::float32);
      Bytes bytes(codec->encoded_bytes(300));
      std::vector<float> back(300);
      set_float_modes(modes);
      const bool done = codec->encode(data.data(), 300, {}, bytes.data());
      codec->decode(bytes.data(), 300, back.data());
      const auto after = float_modes();
      set_float_modes(before);
      const auto expected = expected_of<float>(usual(kind), widened(data), {});
      CHECK(done && bytes == expected.bytes && back == expected.values);
      CHECK_EQ(after, modes);
    }
  }
}
