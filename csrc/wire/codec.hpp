// Derives encoding, decoding and bounds checks of a message from its list of fields. No message has code of
// its own.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.hpp"
#include "wire/messages.hpp"

namespace pccl::wire {

template <class T>
concept HasFields = requires(T t) { t.fields([](auto&&...) {}); };

class Encoder {
 public:
  explicit Encoder(Bytes& to) : out_(to) {}
  void operator()(bool value) { out_.integer<std::uint8_t>(value); }
  template <std::integral T> void operator()(T value) { out_.integer(value); }
  template <class E>
    requires std::is_enum_v<E>
  void operator()(E value) {
    out_.integer(static_cast<std::uint8_t>(value));
  }
  template <std::size_t N> void operator()(std::array<std::uint8_t, N>& value) { out_.raw(value.data(), N); }
  template <HasFields T> void operator()(T& value) { value.fields(*this); }
  void operator()(std::string& value, std::size_t max) {
    const auto size = std::min(value.size(), max);  // texts may be cut; names are checked where they enter
    out_.integer(std::uint32_t(size));
    out_.raw(value.data(), size);
  }
  template <class T> void operator()(std::vector<T>& values, std::size_t max) {
    const auto size = std::min(values.size(), max);
    out_.integer(std::uint32_t(size));
    for (std::size_t i = 0; i < size; ++i) (*this)(values[i]);
  }

 private:
  Writer out_;
};

// Hostile input: every count is compared with its maximum and with the bytes that are left before anything is
// allocated.
class Decoder {
 public:
  explicit Decoder(ByteView from) : in_(from) {}
  bool complete() const { return in_.ok() && in_.left() == 0; }

  void operator()(bool& value) {
    const auto byte = in_.integer<std::uint8_t>();
    if (byte > 1) in_.fail();
    value = byte == 1;
  }
  template <std::integral T> void operator()(T& value) { value = in_.integer<T>(); }
  void operator()(ErrorCode& value) {
    const auto byte = in_.integer<std::uint8_t>();
    if (byte > error_code_last) in_.fail();
    value = static_cast<ErrorCode>(in_.ok() ? byte : 0);
  }
  template <class E>
    requires std::is_enum_v<E>
  void operator()(E& value) {
    const auto byte = in_.integer<std::uint8_t>();
    if (byte < 1 || byte > last_of<E>) in_.fail();
    value = static_cast<E>(in_.ok() ? byte : 1);
  }
  template <std::size_t N> void operator()(std::array<std::uint8_t, N>& value) {
    const auto raw = in_.raw(N);
    if (in_.ok()) std::memcpy(value.data(), raw.data(), N);
  }
  template <HasFields T> void operator()(T& value) { value.fields(*this); }
  void operator()(std::string& value, std::size_t max) {
    const auto size = count(max);
    const auto raw = in_.raw(size);
    if (in_.ok()) value.assign(reinterpret_cast<const char*>(raw.data()), raw.size());
  }
  template <class T> void operator()(std::vector<T>& values, std::size_t max) {
    const auto size = count(max);  // every element takes at least one byte, so `size` is bounded by the input
    values.clear();
    for (std::size_t i = 0; i < size && in_.ok(); ++i) {
      T element{};
      (*this)(element);
      values.push_back(std::move(element));
    }
  }

 private:
  std::size_t count(std::size_t max) {
    const auto size = in_.integer<std::uint32_t>();
    if (size > max || size > in_.left()) in_.fail();
    return in_.ok() ? size : 0;
  }
  Reader in_;
};

// Message: one byte of id, then the fields.
template <class M> void encode(const M& message, Bytes& to) {
  to.push_back(static_cast<std::uint8_t>(M::id));
  Encoder encoder(to);
  const_cast<M&>(message).fields(encoder);  // encoding only reads
}
template <class... Ms> void encode(const std::variant<Ms...>& message, Bytes& to) {
  std::visit([&](const auto& m) { encode(m, to); }, message);
}

namespace detail {
template <class Variant, std::size_t I = 0> std::optional<Variant> decode_as(std::uint8_t id, ByteView body) {
  if constexpr (I == std::variant_size_v<Variant>) {
    return std::nullopt;
  } else {
    using M = std::variant_alternative_t<I, Variant>;
    if (id != static_cast<std::uint8_t>(M::id)) return decode_as<Variant, I + 1>(id, body);
    M message;
    Decoder decoder(body);
    message.fields(decoder);
    if (!decoder.complete()) return std::nullopt;
    return Variant(std::in_place_index<I>, std::move(message));
  }
}
}  // namespace detail

// Nothing when the bytes are not exactly one message of the kind that this side may receive.
template <class Variant> std::optional<Variant> decode(ByteView bytes) {
  if (bytes.empty()) return std::nullopt;
  return detail::decode_as<Variant>(bytes[0], bytes.subspan(1));
}

// 64-bit fingerprint of a value's encoding: travels in data frames so that a chunk of a different operation
// is seen.
template <class T> std::uint64_t fingerprint(const T& value) {
  Bytes bytes;
  Encoder encoder(bytes);
  const_cast<T&>(value).fields(encoder);
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (const auto byte : bytes) hash = (hash ^ byte) * 0x100000001b3ull;
  return hash;
}

}  // namespace pccl::wire
