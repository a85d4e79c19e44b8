#pragma once
// What the kernels should compute, in plain C++ on one element at a time, and a harness that holds every
// instruction set of this machine against it, bit for bit. For test_kernels.cpp.

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "base/dtype.hpp"
#include "check.hpp"
#include "kernels/half.hpp"
#include "kernels/reduce.hpp"

namespace pccl::kernels_check {

using kernels::Level;
using kernels::ReduceArgs;
using kernels::Wire;

// --- Elements in plain C++.

struct Half {
  using Acc = float;
  std::uint16_t bits;
  static Half from(float value) { return {kernels::half_from_float(value)}; }
  float acc() const { return kernels::float_from_half(bits); }
};
struct Brain {
  using Acc = float;
  std::uint16_t bits;
  static Brain from(float value) { return {kernels::bfloat16_from_float(value)}; }
  float acc() const { return kernels::float_from_bfloat16(bits); }
};
template <class T> struct Own {
  using Acc = T;
  T value;
  static Own from(T value) { return {value}; }
  T acc() const { return value; }
};

template <class A> A canonical(A value) {
  if constexpr (std::is_floating_point_v<A>) {
    if (std::isnan(value)) return std::numeric_limits<A>::quiet_NaN();
  }
  return value;
}

template <class A> A expected_extreme(A a, A b, bool smallest) {
  if constexpr (std::is_floating_point_v<A>) {
    if (std::isnan(a) || std::isnan(b)) return std::numeric_limits<A>::quiet_NaN();
    if (a == 0 && b == 0) return (std::signbit(a) == smallest) ? a : b;
  }
  return (smallest ? a < b : a > b) ? a : b;
}

template <class A> A expected(ReduceOp op, A a, A b) {
  if (op == ReduceOp::min || op == ReduceOp::max) return expected_extreme(a, b, op == ReduceOp::min);
  const bool product = op == ReduceOp::prod;
  if constexpr (std::is_floating_point_v<A>) {
    return canonical(product ? a * b : a + b);
  } else {
    const auto x = static_cast<std::uint64_t>(a);
    const auto y = static_cast<std::uint64_t>(b);
    return static_cast<A>(product ? x * y : x + y);
  }
}

template <class A> A expected_quotient(A value, double divisor) {
  if constexpr (std::is_floating_point_v<A>) {
    return canonical(value / static_cast<A>(divisor));
  } else {
    return static_cast<A>(
        value / static_cast<std::conditional_t<std::is_signed_v<A>, std::int64_t, std::uint64_t>>(divisor));
  }
}

template <class Body> void for_all_dtypes(const Body& body) {
  body(DType::float32, Own<float>{});
  body(DType::float64, Own<double>{});
  body(DType::float16, Half{});
  body(DType::bfloat16, Brain{});
  body(DType::int8, Own<std::int8_t>{});
  body(DType::int16, Own<std::int16_t>{});
  body(DType::int32, Own<std::int32_t>{});
  body(DType::int64, Own<std::int64_t>{});
  body(DType::uint8, Own<std::uint8_t>{});
  body(DType::uint16, Own<std::uint16_t>{});
  body(DType::uint32, Own<std::uint32_t>{});
  body(DType::uint64, Own<std::uint64_t>{});
}

inline std::vector<const kernels::Set*> all_levels() {
  std::vector<const kernels::Set*> sets;
  for (const Level level : kernels::all_levels) {
    if (const kernels::Set* set = kernels::kernels_at(level)) sets.push_back(set);
  }
  return sets;
}

// --- Data.

struct Random {
  std::uint64_t state;
  std::uint64_t next() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1dull;
  }
  std::size_t below(std::size_t limit) { return static_cast<std::size_t>((next() >> 33) % limit); }
};

// Any bits, every second item one that is likely to break something.
template <class T> T item(Random& random) {
  const std::uint64_t bits = random.next();
  T any;
  std::memcpy(&any, &bits, sizeof(T));
  if ((random.next() >> 40) % 2 == 0) return any;
  if constexpr (std::is_floating_point_v<T>) {
    using Limits = std::numeric_limits<T>;
    const std::array<T, 10> specials{T(0),
                                     T(1),
                                     T(3),
                                     T(0.1),
                                     Limits::infinity(),
                                     Limits::quiet_NaN(),
                                     Limits::denorm_min(),
                                     Limits::min(),
                                     Limits::max(),
                                     T(65519.99)};
    const T special = specials[random.below(specials.size())];
    return random.below(2) == 0 ? special : -special;
  } else if constexpr (std::is_integral_v<T>) {
    using Limits = std::numeric_limits<T>;
    const std::array<T, 5> specials{T(0), T(1), static_cast<T>(-1), Limits::min(), Limits::max()};
    return specials[random.below(specials.size())];
  } else if constexpr (requires { any.value; }) {
    return T{item<decltype(any.value)>(random)};
  } else {  // the 16-bit floats: zeros, smallest and largest of each kind, one, infinities, NaNs
    const std::array<std::uint16_t, 12> specials{0x0000, 0x0001, 0x03ff, 0x0400, 0x007f, 0x0080,
                                                 0x7bff, 0x7c00, 0x7c01, 0x7f7f, 0x7f80, 0x3f80};
    const auto sign = static_cast<std::uint16_t>(random.below(2) << 15);
    return T{static_cast<std::uint16_t>(specials[random.below(specials.size())] | sign)};
  }
}

// Memory at a chosen distance from an aligned address, with canaries on both sides.
class Buffer {
 public:
  Buffer(std::size_t bytes, std::size_t offset)
      : bytes_(bytes), offset_(offset), room_(bytes + offset + 192, canary) {
    start_ = 64 - reinterpret_cast<std::uintptr_t>(room_.data()) % 64 + offset_;
  }
  std::uint8_t* data() { return room_.data() + start_; }
  template <class T> T get(std::size_t index) {
    T value;
    std::memcpy(&value, data() + index * sizeof(T), sizeof(T));
    return value;
  }
  template <class T> void set(std::size_t index, T value) {
    std::memcpy(data() + index * sizeof(T), &value, sizeof(T));
  }
  template <class T> void fill(std::size_t count, Random& random) {
    for (std::size_t i = 0; i < count; ++i) set(i, item<T>(random));
  }
  void take(Buffer& other) { std::memcpy(data(), other.data(), bytes_); }
  bool same(Buffer& other) { return std::memcmp(data(), other.data(), bytes_) == 0; }
  bool untouched_around() {
    for (std::size_t i = 0; i < room_.size(); ++i) {
      if ((i < start_ || i >= start_ + bytes_) && room_[i] != canary) return false;
    }
    return true;
  }

 private:
  static constexpr std::uint8_t canary = 0xa5;
  std::size_t bytes_, offset_, start_ = 0;
  std::vector<std::uint8_t> room_;
};

// Counts around every register's size, and one that several blocks take.
inline std::vector<std::size_t> counts() {
  std::vector<std::size_t> all;
  for (std::size_t count = 0; count <= 130; ++count) all.push_back(count);
  all.insert(all.end(), {511, 1024, 9001});
  return all;
}

// --- One combination, worked out by hand and by a set.

enum class Kind { plain, keep, weighted };
enum class Place { apart, on_incoming, on_own };

struct Case {
  DType element;
  ReduceOp op = ReduceOp::sum;
  Wire incoming = Wire::element;
  Wire out = Wire::element;
  Kind kind = Kind::plain;
  Place place = Place::apart;
  bool streaming = false;
  double weight = 1.0;
  double divisor = 1.0;

  std::string text() const {
    return std::string(name(element)) + " " + std::string(name(op)) + " wires " +
           std::to_string(static_cast<int>(incoming)) + std::to_string(static_cast<int>(out)) + " kind " +
           std::to_string(static_cast<int>(kind)) + " place " + std::to_string(static_cast<int>(place)) +
           (streaming ? " streaming" : "") + " divisor " + std::to_string(divisor);
  }
};

inline std::size_t bytes_of(DType element, Wire wire) {
  return size_of(wire == Wire::element ? element : accumulator_of(element));
}

template <class E>
void expect(const Case& one, std::size_t count, Buffer& incoming, Buffer& own, Buffer& out) {
  using Acc = typename E::Acc;
  for (std::size_t i = 0; i < count; ++i) {
    const Acc a = one.incoming == Wire::element ? incoming.get<E>(i).acc() : incoming.get<Acc>(i);
    const Acc b = own.get<E>(i).acc();
    Acc value;
    if constexpr (std::is_floating_point_v<Acc>) {
      const volatile Acc product = static_cast<Acc>(one.weight) * b;  // volatile: rounded before it is added
      value = one.kind == Kind::weighted ? canonical(a + product) : expected(one.op, a, b);
    } else {
      value = expected(one.op, a, b);
    }
    if (one.divisor != 1.0) value = expected_quotient(value, one.divisor);
    if (one.out == Wire::element)
      out.set(i, E::from(value));
    else
      out.set(i, value);
  }
}

inline void call(const kernels::Set& set, const Case& one, const ReduceArgs& args, void* keep) {
  if (one.kind == Kind::keep)
    set.combine_keep(one.element, one.op, one.incoming, args, keep);
  else if (one.kind == Kind::plain)
    set.combine(one.element, one.op, one.incoming, one.out, args);
  else
    CHECK(set.combine_weighted(one.element, one.incoming, one.out, args, one.weight));
}

template <class E>
bool holds(const kernels::Set& set, const Case& one, std::size_t count, std::size_t offset, Random& random) {
  using Acc = typename E::Acc;
  const std::size_t own_bytes = count * sizeof(E);
  Buffer incoming(count * bytes_of(one.element, one.incoming), offset * 3 % 64),
      own(own_bytes, offset * 7 % 64);
  Buffer out(count * bytes_of(one.element, one.out), offset), keep(own_bytes, offset * 5 % 64);
  if (one.incoming == Wire::element)
    incoming.fill<E>(count, random);
  else
    incoming.fill<Own<Acc>>(count, random);
  own.fill<E>(count, random);
  Buffer wanted(count * bytes_of(one.element, one.out), 0), own_before(own_bytes, 0);
  own_before.take(own);
  expect<E>(one, count, incoming, own, wanted);

  Buffer& target = one.place == Place::apart ? out : one.place == Place::on_own ? own : incoming;
  call(set, one, ReduceArgs{target.data(), incoming.data(), own.data(), count, one.streaming, one.divisor},
       keep.data());
  return target.same(wanted) && incoming.untouched_around() && own.untouched_around() &&
         out.untouched_around() && keep.untouched_around() &&
         (one.kind != Kind::keep || keep.same(own_before)) &&
         (one.place == Place::on_own || own.same(own_before));
}

template <class E> void check_case(const Case& one) {
  for (const kernels::Set* set : all_levels()) {
    Random random{static_cast<std::uint64_t>(one.element) * 1000003 + 77};
    std::size_t failures = 0, first = 0;
    for (const std::size_t count : counts()) {
      const std::size_t offset = count % 3 == 0 ? 0 : random.below(64);
      if (!holds<E>(*set, one, count, offset, random) && failures++ == 0) first = count;
    }
    CHECK_EQ(
        std::string(failures == 0 ? ""
                                  : one.text() + ", level " + std::to_string(static_cast<int>(set->level())) +
                                        ", first at count " + std::to_string(first)),
        std::string());
  }
}

template <class Body> void for_all_wires(DType element, const Body& body) {
  body(Wire::element, Wire::element);
  if (accumulator_of(element) == element) return;
  body(Wire::element, Wire::accumulator);
  body(Wire::accumulator, Wire::element);
  body(Wire::accumulator, Wire::accumulator);
}

}  // namespace pccl::kernels_check
