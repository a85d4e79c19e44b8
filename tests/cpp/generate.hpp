// Random values of anything that has `fields`: valid by their types and limits, whatever the protocol makes
// of them. One seed replays them. A pool per kind of name makes values meet: peers, views and operations that
// exist.
#pragma once
#include <string>
#include <vector>

#include "base/rng.hpp"
#include "wire/codec.hpp"

namespace pccl::check {

class Generate {
 public:
  explicit Generate(Rng& rng) : rng_(rng) {
    for (std::uint64_t small = 0; small < 4; ++small) numbers.push_back(small);
    numbers.push_back(~std::uint64_t{0});
  }

  std::vector<std::uint64_t> numbers;  // drawn more often than others
  std::vector<ViewId> views;
  std::vector<OpKey> keys;
  std::size_t length_max = 6;  // of a list or text, mostly

  template <class T> T value() {
    T made{};
    made.fields(*this);
    return made;
  }
  // Any message of the variant, each kind as likely.
  template <class Variant> Variant message() {
    return message_at<Variant>(rng_.below(std::variant_size_v<Variant>));
  }

  void operator()(bool& value) { value = rng_.chance(0.5); }
  template <std::integral T> void operator()(T& value) {
    if (!numbers.empty() && rng_.chance(0.7))
      value = T(numbers[rng_.below(numbers.size())]);
    else
      value = T(rng_.next() >> rng_.below(64));
  }
  void operator()(ErrorCode& value) { value = static_cast<ErrorCode>(rng_.below(error_code_last + 1u)); }
  template <class E>
    requires std::is_enum_v<E>
  void operator()(E& value) {
    value = static_cast<E>(1 + rng_.below(last_of<E>));
  }
  template <std::size_t N> void operator()(std::array<std::uint8_t, N>& value) {
    for (auto& byte : value) byte = std::uint8_t(rng_.chance(0.5) ? rng_.below(2) : rng_.next());
  }
  void operator()(ViewId& value) {
    if (!views.empty() && rng_.chance(0.85))
      value = views[rng_.below(views.size())];
    else
      value.fields(*this);
  }
  void operator()(OpKey& value) {
    if (!keys.empty() && rng_.chance(0.85))
      value = keys[rng_.below(keys.size())];
    else
      value.fields(*this);
  }
  template <wire::HasFields T> void operator()(T& value) { value.fields(*this); }
  void operator()(std::string& value, std::size_t max) {
    value.resize(length(max));
    for (auto& letter : value)
      letter = char(rng_.chance(0.9) ? 'a' + int(rng_.below(3)) : int(rng_.below(256)));
  }
  template <class T> void operator()(std::vector<T>& values, std::size_t max) {
    values.resize(length(max));
    for (auto& value : values) (*this)(value);
  }

 private:
  std::size_t length(std::size_t max) {
    return std::min<std::size_t>(
        max, rng_.chance(0.02) ? rng_.below(20 * length_max) : rng_.below(length_max + 1));
  }
  template <class Variant, std::size_t I = 0> Variant message_at(std::size_t index) {
    if constexpr (I + 1 < std::variant_size_v<Variant>)
      if (index != I) return message_at<Variant, I + 1>(index);
    return Variant(std::in_place_index<I>, value<std::variant_alternative_t<I, Variant>>());
  }

  Rng& rng_;
};

}  // namespace pccl::check
