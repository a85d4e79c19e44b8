// A capture whose file stays in memory: snapshots.
#include "bindings/capture.hpp"
#include "staging/stays_there.hpp"

namespace pccl::bindings {

namespace {

using staging::Capture;
using staging::StagingPool;

struct MemoryCapture {
  std::shared_ptr<Capture> capture;
  ~MemoryCapture() {
    without_gil([&] { capture->cancel(); });
  }

  void start() const {
    const Error error = without_gil([&] { return capture->start(); });
    if (error) raise(error);
  }
  bool fence(const FenceRegions& regions, double timeout_s) const {
    return pass_fence(*capture, regions, timeout_s);
  }
  bool wait_staged(double timeout_s, bool copying) const {
    const bool over = wait_with_signals(timeout_s, [&](Duration time) {
      return capture->wait_staged(monotonic_now() + time, way_to_wait(copying));
    });
    if (const Error error = capture->error()) raise(error);
    return over;
  }
  void cancel() const {
    without_gil([&] { capture->cancel(); });
  }
  void expect_staged() const {
    if (!capture->is_staged()) raise({ErrorCode::usage, "checksums are known once everything is copied"});
  }
  py::bytes block_crcs() const {
    expect_staged();
    return packed(capture->block_crcs());
  }
  py::bytes region_crcs() const {
    expect_staged();
    return packed(capture->region_crcs());
  }
};

std::unique_ptr<MemoryCapture> make(std::shared_ptr<StagingPool> pool, const py::bytes& header,
                                    const py::sequence& regions, std::vector<std::uint32_t> foreign,
                                    std::uint64_t block_bytes, unsigned copy_threads) {
  if (!pool->in_place())
    raise({ErrorCode::usage, "what stays in memory needs a pool of its own: StagingPool(in_place=True)"});
  staging::CaptureSpec spec{.header = header_of(header),
                            .regions = regions_of(regions),
                            .foreign = std::move(foreign),
                            .block_bytes = block_bytes,
                            .threads = copy_threads};
  auto made = without_gil([&] {
    return Capture::make(std::move(pool), std::make_shared<staging::StaysThere>(), std::move(spec));
  });
  if (!made) raise(made.error());
  return std::unique_ptr<MemoryCapture>(new MemoryCapture{std::move(*made)});
}

constexpr const char* text =
    "The bytes of a file, `header`, then `regions` as ShardSave takes them, copied to the begin of the "
    "pool's "
    "memory behind the caller's back, and left there. The pool is `in_place`; one capture at a time uses it.";

}  // namespace

void bind_memory_capture(py::module_& module) {
  using py::arg;
  py::class_<MemoryCapture>(module, "MemoryCapture", text)
      .def(py::init(&make), arg("pool"), arg("header"), arg("regions"), py::kw_only(),
           arg("foreign") = std::vector<std::uint32_t>{}, arg("block_bytes") = 1 << 20,
           arg("copy_threads") = 1)
      .def("start", &MemoryCapture::start, "Returns at once.")
      .def("fence", &MemoryCapture::fence, arg("regions"), arg("timeout_s"), "As of ShardSave.")
      .def_property_readonly("staged", [](const MemoryCapture& one) { return one.capture->is_staged(); })
      .def("wait_staged", &MemoryCapture::wait_staged, arg("timeout_s"), py::kw_only(), arg("copying") = true,
           wait_staged_text)
      .def(
          "progress", [](const MemoryCapture& one) { return progress_of(*one.capture); },
          "Bytes copied, bytes of full slabs, all bytes.")
      .def("cancel", &MemoryCapture::cancel, "When it returns nobody reads the regions any more.")
      .def(
          "next_foreign",
          [](const MemoryCapture& one, double timeout_s) { return next_part(*one.capture, timeout_s); },
          arg("timeout_s"), "As of ShardSave.")
      .def(
          "foreign_done",
          [](const MemoryCapture& one, std::size_t region, std::uint64_t offset) {
            part_done(*one.capture, region, offset);
          },
          arg("region"), arg("offset"))
      .def_property_readonly(
          "block_crcs", &MemoryCapture::block_crcs,
          "CRC-32 of each block, 4 bytes each, little-endian. UsageError before all is copied.")
      .def_property_readonly("region_crcs", &MemoryCapture::region_crcs, "The same of each region's bytes.");
}

}  // namespace pccl::bindings
