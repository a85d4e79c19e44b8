#include "disk/disk.hpp"

#include <unistd.h>

#include "disk/bounce_buffers.hpp"
#include "disk/writer_crew.hpp"

namespace pccl::disk {

struct DiskParts {
  const pid_t process = ::getpid();
  WriterCrew crew;
  BounceBuffers buffers;
};

const char* name(Call call) {
  constexpr const char* names[calls_count] = {"open",   "facts",  "direct", "allocate",  "truncate",
                                              "pwrite", "pread",  "push",   "fdatasync", "close",
                                              "rename", "unlink", "mkdir"};
  return names[std::size_t(call)];
}

Disk::Disk() : parts_(new DiskParts) {}

Disk::~Disk() {
  auto* const mine = parts_.load();
  if (mine->process == ::getpid()) delete mine;  // a forked child leaks what it cannot end
}

DiskParts& Disk::parts() {
  auto* found = parts_.load();
  if (found->process == ::getpid()) return *found;
  auto* const own = new DiskParts;
  if (parts_.compare_exchange_strong(found, own)) return *own;
  delete own;
  return *found;
}

WriterCrew& Disk::crew() { return parts().crew; }
BounceBuffers& Disk::buffers() { return parts().buffers; }

}  // namespace pccl::disk
