#pragma once
// Warm, aligned memory that blocks are read into before they are trusted. Made when first needed and kept,
// for fresh memory costs more than the copy out of it. Any thread.

#include <cstddef>
#include <mutex>
#include <vector>

#include "disk/disk.hpp"

namespace pccl::disk {

inline constexpr std::size_t bounce_bytes = 16u << 20;

class BounceBuffers {
 public:
  static constexpr std::size_t kept_max = 4;

  // One buffer of bounce_bytes, given back when it goes.
  class Buffer {
   public:
    Buffer() = default;
    Buffer(BounceBuffers& owner, std::byte* data) : owner_(&owner), data_(data) {}
    Buffer(Buffer&& other) noexcept;
    Buffer& operator=(Buffer&&) = delete;
    ~Buffer();
    std::byte* data() const { return data_; }  // null: there is no memory
    explicit operator bool() const { return data_ != nullptr; }

   private:
    BounceBuffers* owner_ = nullptr;
    std::byte* data_ = nullptr;
  };

  BounceBuffers() = default;
  ~BounceBuffers();
  BounceBuffers(const BounceBuffers&) = delete;
  BounceBuffers& operator=(const BounceBuffers&) = delete;

  Buffer take();      // nobody waits: beyond kept_max it is made for this one use
  Buffer try_take();  // none, where kept_max are in use

 private:
  void give_back(std::byte* data);

  std::mutex mutex_;
  std::vector<std::byte*> idle_;
  std::size_t in_use_ = 0;
};

}  // namespace pccl::disk
