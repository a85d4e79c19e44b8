// The only code that knows about byte order: everything on the wire is little-endian.
#pragma once
#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace pccl {

using Bytes = std::vector<std::uint8_t>;
using ByteView = std::span<const std::uint8_t>;

template <std::integral T> T to_little(T value) {
  if constexpr (std::endian::native == std::endian::big && sizeof(T) > 1) {
    T swapped = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) swapped = T(swapped << 8) | T((value >> (8 * i)) & 0xff);
    return swapped;
  } else {
    return value;
  }
}

template <std::integral T> void store_little(void* to, T value) {
  value = to_little(value);
  std::memcpy(to, &value, sizeof(T));
}

template <std::integral T> T load_little(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return to_little(value);
}

// Appends to a byte vector.
class Writer {
 public:
  explicit Writer(Bytes& to) : to_(to) {}
  template <std::integral T> void integer(T value) {
    std::uint8_t raw[sizeof(T)];
    store_little(raw, value);
    to_.insert(to_.end(), raw, raw + sizeof(T));
  }
  void raw(const void* data, std::size_t size) {
    const auto* p = static_cast<const std::uint8_t*>(data);
    to_.insert(to_.end(), p, p + size);
  }

 private:
  Bytes& to_;
};

// Reads bytes that a hostile peer may have written: once a read does not fit, ok() is false and every value
// is zero.
class Reader {
 public:
  explicit Reader(ByteView from) : from_(from) {}
  template <std::integral T> T integer() {
    if (!take(sizeof(T))) return T{};
    return load_little<T>(from_.data() + at_ - sizeof(T));
  }
  ByteView raw(std::size_t size) {
    if (!take(size)) return {};
    return from_.subspan(at_ - size, size);
  }
  void fail() { ok_ = false; }
  bool ok() const { return ok_; }
  std::size_t left() const { return from_.size() - at_; }

 private:
  bool take(std::size_t size) {
    if (!ok_ || size > left()) return ok_ = false;
    at_ += size;
    return true;
  }
  ByteView from_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace pccl
