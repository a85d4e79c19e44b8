// Staging and saving of checkpoints: the pool, one save, and CRC-32.
#include <unistd.h>

#include "base/prefetch.hpp"
#include "bindings/capture.hpp"
#include "kernels/crc32.hpp"
#include "runtime/shard_save.hpp"
#include "staging/glimpses.hpp"
#include "staging/memory.hpp"

namespace pccl::bindings {

namespace {

using disk::Disk;
using staging::Capture;
using staging::StagingPool;

std::shared_ptr<StagingPool> make_pool(std::uint64_t bytes, int fd, bool huge_pages, bool populate,
                                       bool in_place, std::uint64_t slab_bytes) {
  auto pool = without_gil([&] {
    return StagingPool::make({.bytes = bytes,
                              .fd = fd,
                              .huge_pages = huge_pages,
                              .populate = populate,
                              .in_place = in_place,
                              .slab_bytes = slab_bytes});
  });
  if (!pool) raise(pool.error());
  return std::move(*pool);
}

void close(StagingPool& pool) {
  const Error error = without_gil([&] { return pool.close(); });
  if (error) raise(error);
}

// The pool and the disk outlive the save.
struct SaveObject {
  std::shared_ptr<Disk> disk;
  std::unique_ptr<ShardSave> save;
  ~SaveObject() {
    without_gil([&] { save.reset(); });
  }
  Capture& capture() const { return save->capture(); }

  void start() const {
    const Error error = without_gil([&] { return save->start(); });
    if (error) raise(error);
  }
  bool fence(const FenceRegions& regions, double timeout_s) const {
    return pass_fence(capture(), regions, timeout_s);
  }
  bool wait_staged(double timeout_s, bool copying) const {
    Error error;
    const bool over = wait_with_signals(timeout_s, [&](Duration time) {
      const auto staged = save->wait_staged(monotonic_now() + time, way_to_wait(copying));
      if (!staged) error = staged.error();
      return !staged || staged.value();
    });
    if (error) raise(error);
    return over;
  }
  std::optional<SaveReceipt> wait_durable(double timeout_s) const {
    Error error;
    const SaveReceipt* receipt = nullptr;
    wait_with_signals(timeout_s, [&](Duration time) {
      auto durable = save->wait_durable(monotonic_now() + time);
      if (durable)
        receipt = durable.value();
      else
        error = durable.error();
      return !durable || receipt != nullptr;
    });
    if (error) raise(error);
    if (receipt == nullptr) return std::nullopt;
    return *receipt;
  }
  std::pair<py::bytes, py::bytes> sums() const {
    if (!capture().is_staged())
      raise({ErrorCode::usage, "sums() of a save that is not staged: wait_staged() first"});
    return {packed(capture().block_crcs()), packed(capture().region_crcs())};
  }
  CopyProgress progress() const { return progress_of(capture()); }
  void cancel() const {
    without_gil([&] { save->cancel(); });
  }
  void end() const {
    without_gil([&] { save->end(); });
  }
  std::optional<PartTuple> next_foreign(double timeout_s) const { return next_part(capture(), timeout_s); }
  void foreign_done(std::size_t region, std::uint64_t offset) const { part_done(capture(), region, offset); }
};

std::unique_ptr<SaveObject> make_save(std::shared_ptr<StagingPool> pool, std::shared_ptr<Disk> disk,
                                      std::string path, std::string recycle, const py::bytes& header,
                                      const py::sequence& regions, std::vector<std::uint32_t> foreign,
                                      std::uint64_t block_bytes, unsigned copy_threads,
                                      unsigned write_threads, bool direct, std::string exists_by) {
  SaveSpec spec{.path = std::move(path),
                .recycle = std::move(recycle),
                .exists_by = std::move(exists_by),
                .capture = {.header = header_of(header),
                            .regions = regions_of(regions),
                            .foreign = std::move(foreign),
                            .block_bytes = block_bytes,
                            .threads = copy_threads},
                .write_threads = write_threads,
                .direct = direct};
  auto save = without_gil([&] { return ShardSave::make(std::move(pool), *disk, std::move(spec)); });
  if (!save) raise(save.error());
  return std::unique_ptr<SaveObject>(new SaveObject{std::move(disk), std::move(*save)});
}

std::uint32_t crc32(const py::buffer& data, std::uint32_t before) {
  const auto info = data.request(false);
  if (PyBuffer_IsContiguous(info.view(), 'C') == 0) throw py::value_error("not contiguous");
  const auto bytes = static_cast<std::size_t>(info.view()->len);
  return without_gil([&] { return kernels::best_crc32().of(info.ptr, bytes, before); });
}

int populate_pages(const py::buffer& memory, bool to_write) {
  const auto info = memory.request(to_write);
  if (PyBuffer_IsContiguous(info.view(), 'C') == 0) throw py::value_error("not contiguous");
  const auto bytes = static_cast<std::size_t>(info.view()->len);
  auto* const data = static_cast<std::byte*>(info.ptr);
  return without_gil([&] { return staging::populate_pages(data, bytes, to_write); });
}

void bind_pool(py::module_& module) {
  py::class_<StagingPool, std::shared_ptr<StagingPool>>(
      module, "StagingPool",
      "Warm memory that saves copy into: slabs of 16 MiB, or `slab_bytes`, made once (`bytes` is rounded "
      "up), populated, in "
      "huge pages where the system gives them. `fd`: of a memfd of at least these bytes, mapped shared from "
      "its begin; it stays the caller's. Saves that share a pool get slabs in the order of their start(). "
      "`populate` False: pages come with the first copy, on the thread that copies. `in_place`: slab n takes "
      "slab n of a file, which stays there (MemoryCapture).")
      .def(py::init(&make_pool), py::arg("bytes"), py::kw_only(), py::arg("fd") = -1,
           py::arg("huge_pages") = true, py::arg("populate") = true, py::arg("in_place") = false,
           py::arg("slab_bytes") = staging::slab_bytes_default)
      .def_property_readonly("bytes", &StagingPool::bytes)
      .def_property_readonly("slab_bytes", &StagingPool::slab_bytes)
      .def_property_readonly("slabs", &StagingPool::slabs)
      .def_property_readonly("free", &StagingPool::free, "Slabs that no save uses.")
      .def_property_readonly(
          "address", [](const StagingPool& pool) { return reinterpret_cast<std::uintptr_t>(pool.address()); },
          "Of the first slab; the others follow. 0: it was closed.")
      .def_property_readonly("huge", &StagingPool::huge, "Mostly in huge pages.")
      .def(
          "warm", [](StagingPool& pool) { without_gil([&] { pool.warm(); }); },
          "Gives pages to slabs that nobody has used, on this thread, which has a low priority from then on; "
          "until there is none left, or stop_warming().")
      .def("stop_warming", [](StagingPool& pool) { without_gil([&] { pool.stop_warming(); }); })
      .def("close", &close, "Gives the memory back. UsageError while a save uses it.");
}

void bind_receipt(py::module_& module) {
  py::class_<SaveReceipt>(module, "SaveReceipt", "Of a durable file. Times are seconds since start().")
      // Not `bytes`: the stubs need that word as the type of other properties.
      .def_readonly("file_bytes", &SaveReceipt::bytes)
      .def_property_readonly(
          "block_crcs", [](const SaveReceipt& receipt) { return packed(receipt.block_crcs); },
          "CRC-32 of each block of the file, 4 bytes each, little-endian.")
      .def_property_readonly(
          "region_crcs", [](const SaveReceipt& receipt) { return packed(receipt.region_crcs); },
          "The same of each region's bytes.")
      .def_readonly("direct", &SaveReceipt::direct, "Written past the page cache.")
      .def_readonly("recycled", &SaveReceipt::recycled, "The retired file was used.")
      .def_readonly("staged_seconds", &SaveReceipt::staged_seconds)
      .def_readonly("durable_seconds", &SaveReceipt::durable_seconds)
      .def_readonly("stashed_bytes", &SaveReceipt::stashed_bytes, "Of small regions kept aside for a fence.")
      .def_readonly("callers_bytes", &SaveReceipt::callers_bytes, "Copied by callers who waited.");
}

constexpr const char* save_text =
    "One file: `header`, then `regions` (address and bytes each, memory that must live until they are "
    "staged, "
    "or the save was cancelled) one after the other, copied into the pool behind the caller's back, written "
    "as `path` + \".part\", made durable, then renamed to `path`. `recycle`: \"\", or a retired file that is "
    "overwritten. `exists_by`: \"\", or the name of a file in the same folder; then the folder is made, and "
    "the save fails where that file is there already. `foreign`: indices of regions that the caller copies "
    "himself, part by part. Times are "
    "seconds, negative: no limit. Once it has failed or was cancelled, waits raise that; a fence does not.";

void bind_save(py::module_& module) {
  using py::arg;
  py::class_<SaveObject>(module, "ShardSave", save_text)
      .def(py::init(&make_save), arg("pool"), arg("disk"), arg("path"), arg("recycle"), arg("header"),
           arg("regions"), py::kw_only(), arg("foreign") = std::vector<std::uint32_t>{},
           arg("block_bytes") = 1 << 20, arg("copy_threads") = 1, arg("write_threads") = 2,
           arg("direct") = true, arg("exists_by") = "")
      .def("start", &SaveObject::start, "Returns at once; touches no disk.")
      .def("fence", &SaveObject::fence, arg("regions"), arg("timeout_s"),
           "True: these regions (None: all) may be changed now. False: the time was over, they may not.")
      .def_property_readonly("staged", [](const SaveObject& save) { return save.capture().is_staged(); })
      .def("wait_staged", &SaveObject::wait_staged, arg("timeout_s"), py::kw_only(), arg("copying") = true,
           wait_staged_text)
      .def("wait_durable", &SaveObject::wait_durable, arg("timeout_s"), "None: the time was over.")
      .def("sums", &SaveObject::sums,
           "Once it is staged, perhaps long before it is durable: block_crcs and region_crcs of the receipt.")
      .def("progress", &SaveObject::progress, "Bytes staged, bytes written, all bytes.")
      .def("cancel", &SaveObject::cancel, "When it returns nobody reads the regions any more.")
      .def("end", &SaveObject::end,
           "cancel(), and waits until the disk is through with it, whatever that takes. The last call; "
           "without it the thread that drops the object waits.")
      .def(
          "next_foreign", &SaveObject::next_foreign, arg("timeout_s"),
          "(region, offset in it, address, bytes): to be copied to the address, then foreign_done. None: the "
          "time was over, all were given out, or the save has ended. Call it on another thread than fences: "
          "in a "
          "small pool these wait for slabs that wait for parts.")
      .def("foreign_done", &SaveObject::foreign_done, arg("region"), arg("offset"),
           "Also after the save has ended: the slab is not used again before.");
}

using Places = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

void bind_prefetch(py::module_& module) {
  py::class_<Prefetch>(module, "Prefetch", "Asks for memory that is about to be read in many places.")
      .def(py::init([](const Places& places) {
             Prefetch prefetch;
             for (const auto& [address, bytes] : places) prefetch.add(address, bytes);
             return prefetch;
           }),
           py::arg("places"), "Addresses and bytes; any, for none is read.")
      .def("begin", &Prefetch::begin, "Returns at once; the caches are filled meanwhile.")
      .def_property_readonly("lines", &Prefetch::lines, "Cache lines that begin() asks for.");
}

py::bytes take(const staging::Glimpses& glimpses, std::size_t first, std::size_t last) {
  if (first > last || last > glimpses.size())
    throw py::index_error("places " + std::to_string(first) + " to " + std::to_string(last) + " of " +
                          std::to_string(glimpses.size()));
  const std::size_t bytes = glimpses.bytes(first, last);
  auto taken =
      py::reinterpret_steal<py::bytes>(PyBytes_FromStringAndSize(nullptr, static_cast<py::ssize_t>(bytes)));
  if (!taken) throw py::error_already_set();
  glimpses.take(first, last, PyBytes_AS_STRING(taken.ptr()));
  return taken;
}

void bind_glimpses(py::module_& module) {
  py::class_<staging::Glimpses>(module, "Glimpses", "A few bytes of each of many tensors.")
      .def(py::init([](const Places& places) {
             std::vector<staging::Glimpses::Place> all;
             for (const auto& [address, bytes] : places) all.push_back({address, bytes});
             return staging::Glimpses(std::move(all));
           }),
           py::arg("places"), "Addresses and bytes: memory that somebody holds.")
      .def("take", &take, py::arg("first"), py::arg("last"), "Of places [first, last), one after the other.");
}

}  // namespace

void bind_staging(py::module_& module) {
  bind_pool(module);
  bind_receipt(module);
  bind_save(module);
  bind_memory_capture(module);
  bind_prefetch(module);
  bind_glimpses(module);
  module.def(
      "populate_pages", &populate_pages, py::arg("memory"), py::kw_only(), py::arg("to_write"),
      "Gives whole pages their memory, or maps what they have, without the GIL. An errno, 0: done; EINVAL "
      "or ENOSYS: the system cannot.");
  module.def("crc32", &crc32, py::arg("buffer"), py::arg("crc") = 0, "As zlib.crc32, without the GIL.");
  module.def("crc32_combine", &kernels::crc32_combine, py::arg("a"), py::arg("b"), py::arg("bytes_b"),
             "Of a and b together, from the CRCs of both and the bytes of b.");
  // Whoever registered later has ended his saves by now; what is left reads memory that is about to go.
  py::module_::import("atexit").attr("register")(
      py::cpp_function([] { without_gil([] { staging::CopyThreads::here().stop_all(); }); }));
}

}  // namespace pccl::bindings
