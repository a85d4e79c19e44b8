#include "disk/bounce_buffers.hpp"

#include <sys/mman.h>

#include <utility>

namespace pccl::disk {

namespace {

constexpr std::size_t huge_page = 2u << 20;

// Not for forked children: a page that the device fills while a child shares it may stay with the child.
std::byte* map_buffer() {
  const auto room = bounce_bytes + huge_page;
  void* mapped = ::mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* begin = static_cast<std::byte*>(mapped);
  const auto before = (huge_page - reinterpret_cast<std::uintptr_t>(begin) % huge_page) % huge_page;
  auto* aligned = begin + before;
  if (before > 0) ::munmap(begin, before);
  if (before < huge_page) ::munmap(aligned + bounce_bytes, huge_page - before);
  ::madvise(aligned, bounce_bytes, MADV_DONTFORK);
  ::madvise(aligned, bounce_bytes, MADV_HUGEPAGE);
  return aligned;
}

}  // namespace

BounceBuffers::Buffer::Buffer(Buffer&& other) noexcept
    : owner_(other.owner_), data_(std::exchange(other.data_, nullptr)) {}

BounceBuffers::Buffer::~Buffer() {
  if (data_ != nullptr) owner_->give_back(data_);
}

BounceBuffers::~BounceBuffers() {
  for (auto* data : idle_) ::munmap(data, bounce_bytes);
}

BounceBuffers::Buffer BounceBuffers::take() {
  const std::lock_guard lock(mutex_);
  std::byte* data = nullptr;
  if (idle_.empty()) {
    data = map_buffer();
  } else {
    data = idle_.back();
    idle_.pop_back();
  }
  if (data != nullptr) ++in_use_;
  return {*this, data};
}

BounceBuffers::Buffer BounceBuffers::try_take() {
  {
    const std::lock_guard lock(mutex_);
    if (in_use_ >= kept_max) return {};
  }
  return take();  // another thread may have come in between: one more for this one use
}

void BounceBuffers::give_back(std::byte* data) {
  const std::lock_guard lock(mutex_);
  --in_use_;
  if (idle_.size() < kept_max)
    idle_.push_back(data);
  else
    ::munmap(data, bounce_bytes);
}

}  // namespace pccl::disk
