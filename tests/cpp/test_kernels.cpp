// Every kernel on every instruction set of this machine, bit for bit against kernels_reference.hpp: odd
// counts, unaligned addresses, in place, streaming, special values. Canaries around each buffer show stray
// writes.

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>
#include <type_traits>
#include <vector>

#include "check.hpp"
#include "kernels_reference.hpp"

namespace {

using namespace pccl;
using namespace pccl::kernels_check;

constexpr std::array all_ops{ReduceOp::sum, ReduceOp::avg, ReduceOp::prod, ReduceOp::min, ReduceOp::max};

}  // namespace

TEST(dtype_facts) {
  std::size_t bytes = 0;
  for_all_dtypes([&](DType dtype, auto element) {
    CHECK_EQ(size_of(dtype), sizeof(element));
    CHECK_EQ(size_of(accumulator_of(dtype)), sizeof(typename decltype(element)::Acc));
    CHECK_EQ(is_floating(dtype), std::is_floating_point_v<typename decltype(element)::Acc>);
    CHECK(valid(dtype));
    bytes += size_of(dtype);
  });
  CHECK_EQ(bytes, 46u);
  CHECK_EQ(name(DType::bfloat16), std::string_view("bfloat16"));
  CHECK_EQ(name(DType::uint64), std::string_view("uint64"));
  CHECK_EQ(name(ReduceOp::avg), std::string_view("avg"));
  CHECK(!valid_dtype(0) && valid_dtype(1) && valid_dtype(12) && !valid_dtype(13));
  CHECK(!valid_reduce_op(0) && valid_reduce_op(1) && valid_reduce_op(5) && !valid_reduce_op(6));
}

TEST(levels) {
  REQUIRE(kernels::kernels_at(Level::scalar) != nullptr);
  CHECK(kernels::best().level() == all_levels().back()->level());
}

TEST(float16_decodes_to_its_value) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = kernels::float_from_half(static_cast<std::uint16_t>(bits));
    const int exponent = static_cast<int>(bits >> 10 & 31);
    const auto fraction = static_cast<float>(bits & 0x3ff);
    float size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31) size = fraction == 0 ? std::numeric_limits<float>::infinity() : std::nanf("");
    if (std::isnan(size) ? !std::isnan(value) : std::fabs(value) != size) CHECK_EQ(value, size);
    if (std::signbit(value) != (bits >= 0x8000)) CHECK_EQ(bits, 0u);
  }
}

// Each value encodes to itself; halfway to the next one goes to the even one, a hair less and more to the
// nearer.
TEST(float16_and_bfloat16_encode_to_nearest_even) {
  const auto check = [](auto decode, auto encode, std::uint16_t infinity) {
    for (std::uint16_t bits = 0; bits < infinity; ++bits) {
      const auto above = static_cast<std::uint16_t>(bits + 1);
      const double low = decode(bits);
      // The largest finite value rounds up as if the next power of two were finite.
      const double high = above < infinity ? static_cast<double>(decode(above))
                                           : low + (low - decode(static_cast<std::uint16_t>(bits - 1)));
      const auto half_way = static_cast<float>((low + high) / 2);
      const std::uint16_t even = bits % 2 == 0 ? bits : above;
      bool good =
          encode(static_cast<float>(low)) == bits && encode(static_cast<float>(-low)) == (bits | 0x8000);
      if (static_cast<double>(half_way) == (low + high) / 2) {
        good = good && encode(half_way) == even && encode(-half_way) == (even | 0x8000);
        good = good && encode(std::nextafterf(half_way, 0)) == bits;
        good = good && encode(std::nextafterf(half_way, std::numeric_limits<float>::infinity())) == above;
      }
      if (!good) CHECK_EQ(bits, infinity);
    }
    CHECK_EQ(encode(std::numeric_limits<float>::infinity()), infinity);
    CHECK(std::isnan(
        decode(encode(std::bit_cast<float>(0x7f800001u)))));  // a signalling NaN does not become infinity
    CHECK(std::isnan(decode(encode(std::bit_cast<float>(0xffffffffu)))));
  };
  check(kernels::float_from_half, kernels::half_from_float, std::uint16_t{0x7c00});
  check(kernels::float_from_bfloat16, kernels::bfloat16_from_float, std::uint16_t{0x7f80});
}

TEST(every_level_converts_16_bit_floats_alike) {
  std::vector<std::uint16_t> all(0x10000), back(0x10000);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
  std::vector<float> wide(all.size());
  for (const kernels::Set* set : all_levels()) {
    for (const DType dtype : {DType::float16, DType::bfloat16}) {
      CHECK(set->widen_scaled(dtype, wide.data(), all.data(), all.size(), 1.0));
      set->finish_avg(dtype, Wire::accumulator, back.data(), wide.data(), wide.size(), 1.0);
      std::size_t wrong = 0;
      for (std::size_t i = 0; i < all.size(); ++i) {
        const float value = dtype == DType::float16 ? Half{all[i]}.acc() : Brain{all[i]}.acc();
        wrong += std::bit_cast<std::uint32_t>(wide[i]) != std::bit_cast<std::uint32_t>(canonical(value));
        const std::uint16_t quiet = dtype == DType::float16 ? 0x7e00 : 0x7fc0;
        wrong += back[i] != (std::isnan(value) ? quiet : all[i]);
      }
      CHECK_EQ(wrong, 0u);
    }
  }
}

TEST(combine_gives_the_same_bits_everywhere) {
  for_all_dtypes([](DType element, auto kind) {
    for (const ReduceOp op : all_ops) {
      for_all_wires(element, [&](Wire incoming, Wire out) {
        for (const bool streaming : {false, true}) {
          check_case<decltype(kind)>(
              {.element = element, .op = op, .incoming = incoming, .out = out, .streaming = streaming});
        }
      });
    }
  });
}

TEST(combine_in_place) {
  for_all_dtypes([](DType element, auto kind) {
    for (const bool streaming : {false, true}) {
      for (const Place place : {Place::on_incoming, Place::on_own}) {
        for (const double divisor : {1.0, 3.0}) {
          check_case<decltype(kind)>(
              {.element = element, .place = place, .streaming = streaming, .divisor = divisor});
        }
      }
      check_case<decltype(kind)>({.element = element,
                                  .incoming = Wire::accumulator,
                                  .out = Wire::accumulator,
                                  .place = Place::on_incoming,
                                  .streaming = streaming});
    }
  });
}

TEST(combine_divides_in_the_same_pass) {
  for_all_dtypes([](DType element, auto kind) {
    for_all_wires(element, [&](Wire incoming, Wire out) {
      for (const double divisor : {2.0, 3.0, 100.0}) {
        for (const ReduceOp op : {ReduceOp::avg, ReduceOp::max}) {
          check_case<decltype(kind)>({.element = element,
                                      .op = op,
                                      .incoming = incoming,
                                      .out = out,
                                      .streaming = true,
                                      .divisor = divisor});
        }
      }
    });
  });
}

TEST(combine_keep_saves_the_old_values) {
  for_all_dtypes([](DType element, auto kind) {
    for_all_wires(element, [&](Wire incoming, Wire out) {
      if (out != Wire::element) return;
      for (const Place place : {Place::on_own, Place::apart}) {
        for (const ReduceOp op : {ReduceOp::avg, ReduceOp::min}) {
          for (const double divisor : {1.0, 7.0}) {
            Case one{.element = element, .op = op, .incoming = incoming, .kind = Kind::keep, .place = place};
            one.divisor = divisor;
            check_case<decltype(kind)>(one);
            one.streaming = true;
            check_case<decltype(kind)>(one);
          }
        }
      }
    });
  });
}

TEST(combine_weighted_rounds_twice) {
  for_all_dtypes([](DType element, auto kind) {
    if (!is_floating(element)) {
      std::array<std::uint64_t, 2> values{1, 2};
      const auto before = values;
      CHECK(!kernels::combine_weighted(element, Wire::element, Wire::element,
                                       {&values[0], &values[0], &values[1], 1}, 2.0));
      CHECK_EQ(values, before);
      return;
    }
    for_all_wires(element, [&](Wire incoming, Wire out) {
      for (const double weight : {0.1, -3.0}) {
        for (const double divisor : {1.0, 5.5}) {
          check_case<decltype(kind)>({.element = element,
                                      .incoming = incoming,
                                      .out = out,
                                      .kind = Kind::weighted,
                                      .weight = weight,
                                      .divisor = divisor});
        }
      }
    });
  });
}

TEST(widen_scale_and_finish) {
  for_all_dtypes([](DType element, auto kind) {
    using E = decltype(kind);
    using Acc = typename E::Acc;
    for (const kernels::Set* set : all_levels()) {
      Random random{static_cast<std::uint64_t>(element) + 5};
      std::size_t wrong = 0;
      for (const std::size_t count : counts()) {
        Buffer elements(count * sizeof(E), random.below(64)), sums(count * sizeof(Acc), random.below(64));
        Buffer wide(count * sizeof(Acc), random.below(64)), done(count * sizeof(E), random.below(64));
        elements.fill<E>(count, random);
        sums.fill<Own<Acc>>(count, random);
        Buffer before(count * sizeof(E), 0);
        before.take(elements);
        const double factor = is_floating(element) ? 0.3 : 1.0;
        const double divisor = 1.0 + static_cast<double>(random.below(100));
        CHECK(set->widen_scaled(element, wide.data(), elements.data(), count, factor));
        set->finish_avg(element, Wire::accumulator, done.data(), sums.data(), count, divisor, count % 2 == 0);
        set->scale(element, elements.data(), count, divisor);
        for (std::size_t i = 0; i < count; ++i) {
          const Acc value = before.get<E>(i).acc();
          const Acc scaled =
              is_floating(element) ? canonical(static_cast<Acc>(value * static_cast<Acc>(factor))) : value;
          const E finished = E::from(expected_quotient(sums.get<Acc>(i), divisor));
          const E quotient = E::from(expected_quotient(value, divisor));
          wrong += std::memcmp(&scaled, wide.data() + i * sizeof(Acc), sizeof(Acc)) != 0;
          wrong += std::memcmp(&finished, done.data() + i * sizeof(E), sizeof(E)) != 0;
          wrong += std::memcmp(&quotient, elements.data() + i * sizeof(E), sizeof(E)) != 0;
        }
        for (Buffer* buffer : {&elements, &sums, &wide, &done}) wrong += !buffer->untouched_around();
      }
      CHECK_EQ(wrong, 0u);
    }
  });
}

TEST(integers_average_toward_zero) {
  for (const kernels::Set* set : all_levels()) {
    std::array<std::int8_t, 6> small{-128, -7, -1, 1, 7, 127};
    set->scale(DType::int8, small.data(), small.size(), 2.0);
    CHECK_EQ(small, (std::array<std::int8_t, 6>{-64, -3, 0, 0, 3, 63}));
    set->scale(DType::int8, small.data(), small.size(), 200.0);  // more than the type holds
    CHECK_EQ(small, (std::array<std::int8_t, 6>{}));
    constexpr std::int64_t lowest = std::numeric_limits<std::int64_t>::min();
    std::array<std::int64_t, 3> large{lowest, 9007199254740993, -9007199254740993};
    set->scale(DType::int64, large.data(), large.size(), 1.9);  // the divisor is truncated: nothing happens
    CHECK_EQ(large, (std::array<std::int64_t, 3>{lowest, 9007199254740993, -9007199254740993}));
    set->scale(DType::int64, large.data(), large.size(), -4.0);  // no divisor is below 1
    CHECK_EQ(large[0], lowest);
    set->scale(DType::int64, large.data(), large.size(), 2.0);
    CHECK_EQ(large, (std::array<std::int64_t, 3>{lowest / 2, 4503599627370496, -4503599627370496}));
    std::array<std::uint32_t, 3> top{4294967295u, 4294967294u, 2147483648u};
    set->scale(DType::uint32, top.data(), top.size(), 4294967295.0);
    CHECK_EQ(top, (std::array<std::uint32_t, 3>{1, 0, 0}));
  }
}

TEST(nan_and_zero_rules) {
  const float nan = std::bit_cast<float>(0xffc12345u), inf = std::numeric_limits<float>::infinity();
  const std::array<float, 6> a{nan, 1.0f, inf, 0.0f, -0.0f, nan};
  const std::array<float, 6> b{1.0f, nan, -inf, -0.0f, 0.0f, nan};
  const auto bits = [&](const kernels::Set& set, ReduceOp op) {
    std::array<float, 6> out{};
    set.combine(DType::float32, op, Wire::element, Wire::element,
                {out.data(), a.data(), b.data(), out.size()});
    return std::bit_cast<std::array<std::uint32_t, 6>>(out);
  };
  constexpr std::uint32_t q = 0x7fc00000u, minus = 0x80000000u;
  using Bits = std::array<std::uint32_t, 6>;
  for (const kernels::Set* set : all_levels()) {
    CHECK_EQ(bits(*set, ReduceOp::sum), (Bits{q, q, q, 0, 0, q}));
    CHECK_EQ(bits(*set, ReduceOp::prod), (Bits{q, q, 0xff800000u, minus, minus, q}));
    CHECK_EQ(bits(*set, ReduceOp::min), (Bits{q, q, 0xff800000u, minus, minus, q}));
    CHECK_EQ(bits(*set, ReduceOp::max), (Bits{q, q, 0x7f800000u, 0, 0, q}));
  }
}

// 2048 + 1 + 1 is 2050, but 2048 in float16 when every step rounds: the reason for accumulators between
// steps.
TEST(accumulators_round_once) {
  const std::uint16_t large = Half::from(2048.0f).bits, one = Half::from(1.0f).bits;
  float sum = 0;
  std::uint16_t out = 0;
  kernels::combine(DType::float16, ReduceOp::sum, Wire::element, Wire::accumulator, {&sum, &large, &one, 1});
  CHECK_EQ(sum, 2049.0f);
  kernels::combine(DType::float16, ReduceOp::sum, Wire::accumulator, Wire::element, {&out, &sum, &one, 1});
  CHECK_EQ(Half{out}.acc(), 2050.0f);
}

TEST(copy_copies) {
  for (const kernels::Set* set : all_levels()) {
    Random random{11};
    std::size_t wrong = 0;
    for (std::size_t bytes = 0; bytes < 5000; bytes = bytes < 300 ? bytes + 1 : bytes * 5 / 3) {
      for (const bool streaming : {false, true}) {
        Buffer from(bytes, random.below(64)), to(bytes, random.below(64));
        from.fill<std::uint8_t>(bytes, random);
        set->copy(to.data(), from.data(), bytes, streaming);
        wrong += !to.same(from) || !to.untouched_around();
      }
    }
    CHECK_EQ(wrong, 0u);
  }
}
