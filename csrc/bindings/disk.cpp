// Files of checkpoints: disks, the writer of one file, the reader that checks what it reads.
#include <cstring>
#include <tuple>

#include "base/bytes.hpp"
#include "bindings/common.hpp"
#include "disk/injected_disk.hpp"
#include "disk/shard_reader.hpp"
#include "disk/shard_writer.hpp"

namespace pccl::bindings {

namespace {

using disk::Disk;
using disk::InjectedDisk;
using disk::ShardWriter;

using RunTuple =
    std::tuple<std::uint64_t, std::uintptr_t, std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t>;

std::shared_ptr<Disk> the_system_s_disk() {
  return {&disk::system_disk(), [](Disk*) {}};
}

std::shared_ptr<InjectedDisk> injected_disk(const std::string& script) {
  auto faults = disk::parse_faults(script);
  if (!faults) raise(faults.error());
  return std::make_shared<InjectedDisk>(std::move(*faults));
}

py::dict calls_of(const InjectedDisk& disk) {
  py::dict calls;
  for (std::size_t i = 0; i < disk::calls_count; ++i)
    calls[disk::name(disk::Call(i))] = disk.calls(disk::Call(i));
  return calls;
}

// The disk outlives the writer.
struct WriterObject {
  std::shared_ptr<Disk> disk;
  std::unique_ptr<ShardWriter> writer;
  ~WriterObject() {
    without_gil([&] { writer.reset(); });
  }
  void write(std::uint64_t offset, std::uintptr_t address, std::size_t bytes) {
    writer->write(offset, reinterpret_cast<const std::byte*>(address), bytes, nullptr);
  }
  void finish() {
    const Error error = without_gil([&] { return writer->finish(); });
    if (error) raise(error);
  }
  void abandon() {
    without_gil([&] { writer->abandon(); });
  }
};

std::unique_ptr<WriterObject> open_writer(const std::shared_ptr<Disk>& disk, const std::string& path,
                                          std::uint64_t bytes, const std::string& recycle, unsigned threads,
                                          bool direct) {
  const disk::WriteTarget target{path, recycle, bytes, direct};
  auto writer = without_gil([&] { return ShardWriter::open(*disk, target, threads); });
  if (!writer) raise(writer.error());
  return std::unique_ptr<WriterObject>(new WriterObject{disk, std::move(*writer)});
}

std::vector<std::uint32_t> numbers_in(const std::string& crcs) {
  if (crcs.size() % 4 != 0)
    raise({ErrorCode::usage, "crcs has no whole numbers: give 4 bytes for each block"});
  std::vector<std::uint32_t> numbers(crcs.size() / 4);
  for (std::size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = load_little<std::uint32_t>(crcs.data() + 4 * i);
  return numbers;
}

disk::ReadStats read_verified(const std::shared_ptr<Disk>& disk, const std::string& path,
                              std::uint64_t file_bytes, std::uint64_t block_bytes, const py::bytes& crcs,
                              const std::vector<RunTuple>& runs, unsigned threads) {
  const auto numbers = numbers_in(crcs);
  disk::ReadPlan plan{path, file_bytes, block_bytes, numbers, {}};
  for (const auto& [offset, address, bytes, count, file_stride, memory_stride] : runs)
    plan.runs.push_back(
        {offset, reinterpret_cast<std::byte*>(address), bytes, count, file_stride, memory_stride});
  auto stats = without_gil([&] { return disk::read_verified(*disk, plan, threads); });
  if (!stats) raise(stats.error());
  return *stats;
}

constexpr const char* injected_doc =
    "A disk for tests whose calls fail by a script: entries `CALL WHICH WHAT`, divided by `;` or line "
    "ends.\n"
    "CALL: open, facts, direct, allocate, truncate, pwrite, pread, push, fdatasync, close, rename, unlink, "
    "mkdir.\n"
    "WHICH: `3` (the third such call), `3+` (it and all later), `3-5`, or `*`.\n"
    "WHAT: an error (ENOSPC, EIO, EROFS, EINTR, EINVAL, EACCES, EDQUOT, ENOENT, EXDEV, EMFILE, EFBIG, "
    "EAGAIN,\n"
    "ESTALE, EOPNOTSUPP), `cut BYTES` (pwrite and pread take so many at most), `delay MILLISECONDS`, or "
    "`kill`\n"
    "(SIGKILL to this process instead of the call). `direct * EINVAL` is a file system without O_DIRECT.";

}  // namespace

void bind_disk(py::module_& module) {
  py::class_<Disk, std::shared_ptr<Disk>>(module, "Disk",
                                          "The system's file calls, and the threads that write.")
      .def(py::init(&the_system_s_disk));
  py::class_<InjectedDisk, Disk, std::shared_ptr<InjectedDisk>>(module, "InjectedDisk", injected_doc)
      .def(py::init(&injected_disk), py::arg("script"))
      .def("calls", calls_of, "How many calls of each kind there were.");
  py::class_<WriterObject>(module, "ShardWriter",
                           "Writes one file of `bytes` under the temporary name `path`, in parts.")
      .def(py::init(&open_writer), py::arg("disk"), py::arg("path"), py::arg("bytes"), py::kw_only(),
           py::arg("recycle") = "", py::arg("threads") = 2, py::arg("direct") = true)
      .def("write", &WriterObject::write, py::arg("offset"), py::arg("address"), py::arg("bytes"),
           "Memory aligned to 4096 that stays as it is until finish(), readable up to the next 4096.")
      .def("finish", &WriterObject::finish, "Waits until all parts are on the device.")
      .def("abandon", &WriterObject::abandon, "Stops, and removes the file.")
      .def_property_readonly("direct", [](const WriterObject& w) { return w.writer->direct(); })
      .def_property_readonly("recycled", [](const WriterObject& w) { return w.writer->recycled(); })
      .def_property_readonly("written", [](const WriterObject& w) { return w.writer->written(); });
  py::class_<disk::ReadStats>(module, "ReadStats")
      .def_readonly("bytes_read", &disk::ReadStats::bytes_read)
      .def_readonly("bytes_copied", &disk::ReadStats::bytes_copied)
      .def_readonly("blocks", &disk::ReadStats::blocks)
      .def_readonly("threads", &disk::ReadStats::threads)
      .def_readonly("direct", &disk::ReadStats::direct)
      .def_readonly("seconds", &disk::ReadStats::seconds);
  module.def(
      "read_verified", read_verified, py::arg("disk"), py::arg("path"), py::kw_only(), py::arg("file_bytes"),
      py::arg("block_bytes"), py::arg("crcs"), py::arg("runs"), py::arg("threads") = 4,
      "Reads runs (file_offset, address, bytes, count, file_stride, memory_stride) from blocks whose\n"
      "CRC-32 is that of `crcs`, little-endian, 4 bytes each. DamagedError names file, block and bytes; "
      "memory\nmay then hold bytes of blocks that were right.");
}

}  // namespace pccl::bindings
