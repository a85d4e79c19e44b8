// Memory that other processes of this host can map: segments of this process, each a sealed memfd that the
// kernel frees with the last process that uses it, and in them the tensors that users ask for. Any thread.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

namespace pccl {

// Mapped where huge pages fit; null: it cannot be.
void* map_aligned(int fd, std::size_t bytes, int protection);

class SharedMemory {
 public:
  // The process's own; never destroyed, tensors may outlive everything else.
  static SharedMemory& instance();

  // Zeroed memory, 64 bytes aligned; null: there is none (no memory, descriptors or segments are left).
  std::uint8_t* allocate(std::size_t bytes);
  // Of allocate(); peers that map it keep it until they have heard. In a forked child only the child's own
  // mapping ends.
  void free(std::uint8_t* memory);

  struct Segment {
    std::uint32_t number = 0;  // never used again in this process
    int fd = -1;
    std::uint64_t bytes = 0;
  };
  struct Place {
    Segment segment;
    std::uint64_t offset = 0;
  };
  // Where a range lies, if in one of this process's segments.
  std::optional<Place> find(const std::uint8_t* begin, std::size_t bytes) const;
  bool exists(std::uint32_t segment) const;
  std::size_t bytes() const;  // of all segments

 private:
  SharedMemory() = default;
  struct Mapped {
    Segment segment;
    std::uint8_t* base = nullptr;
    int process = 0;         // that made it; a forked child must not touch its descriptor
    std::size_t used = 0;    // from here on it is free
    std::size_t living = 0;  // tensors in it
    bool shared = false;     // by several tensors
  };
  using BySegment = std::map<std::uint8_t*, Mapped>;  // by base
  BySegment::iterator create(std::size_t bytes);
  BySegment::const_iterator around(const std::uint8_t* memory) const;

  mutable std::mutex mutex_;  // guards all below
  BySegment segments_;
  std::uint8_t* slab_ = nullptr;  // base of the segment that small tensors go to
  std::uint32_t next_number_ = 1;
};

// A small sealed segment that shows others that they can map this process's memory.
class Door {
 public:
  explicit Door(const void* token, std::size_t bytes);
  ~Door();
  Door(const Door&) = delete;
  int fd() const { return fd_; }  // -1: there is no shared memory here

 private:
  int fd_;
  int process_;
};

}  // namespace pccl
