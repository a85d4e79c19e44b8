// Shared by the bindings of what stages memory: arguments, and the calls that every capture has.
#pragma once
#include <string_view>
#include <tuple>

#include "base/bytes.hpp"
#include "bindings/common.hpp"
#include "staging/capture.hpp"

namespace pccl::bindings {

inline py::bytes packed(const std::vector<std::uint32_t>& numbers) {
  std::string raw(numbers.size() * 4, '\0');
  for (std::size_t i = 0; i < numbers.size(); ++i) store_little(raw.data() + 4 * i, numbers[i]);
  return raw;
}

inline std::uint64_t number(PyObject* item) {
  const auto value = PyLong_AsUnsignedLongLong(item);
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  return value;
}

// By hand: there may be tens of thousands of them, and the caller is a training loop.
inline std::vector<staging::Region> regions_of(const py::sequence& pairs) {
  const auto fast = py::reinterpret_steal<py::object>(PySequence_Fast(pairs.ptr(), "regions is no sequence"));
  if (!fast) throw py::error_already_set();
  const auto count = PySequence_Fast_GET_SIZE(fast.ptr());
  std::vector<staging::Region> regions;
  regions.reserve(static_cast<std::size_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* const pair = PySequence_Fast_GET_ITEM(fast.ptr(), i);
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2)
      throw py::type_error("regions are tuples of address and bytes");
    regions.push_back({reinterpret_cast<const std::byte*>(number(PyTuple_GET_ITEM(pair, 0))),
                       number(PyTuple_GET_ITEM(pair, 1))});
  }
  return regions;
}

inline std::vector<std::byte> header_of(const py::bytes& header) {
  const std::string_view text = header;
  const auto* const begin = reinterpret_cast<const std::byte*>(text.data());
  return {begin, begin + text.size()};
}

using FenceRegions = std::optional<std::vector<std::uint32_t>>;

inline bool pass_fence(staging::Capture& capture, const FenceRegions& regions, double timeout_s) {
  return wait_with_signals(timeout_s, [&](Duration time) {
    const auto until = monotonic_now() + time;
    return regions ? capture.fence(*regions, until) : capture.fence(std::nullopt, until);
  });
}

inline staging::Capture::Waits way_to_wait(bool copying) {
  return copying ? staging::Capture::Waits::copying : staging::Capture::Waits::aside;
}

constexpr const char* wait_staged_text =
    "True: everything is copied and summed. `copying`: the caller copies along; else it waits aside.";

using CopyProgress = std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>;

inline CopyProgress progress_of(const staging::Capture& capture) {
  const auto now = capture.progress();
  return {now.staged, now.released, now.total};
}

using PartTuple = std::tuple<std::size_t, std::uint64_t, std::uintptr_t, std::uint64_t>;

inline std::optional<PartTuple> next_part(staging::Capture& capture, double timeout_s) {
  std::optional<staging::ForeignPart> part;
  wait_with_signals(timeout_s, [&](Duration time) {
    part = capture.next_foreign(monotonic_now() + time);
    return part.has_value() || capture.is_handed_out();
  });
  if (!part) return std::nullopt;
  return PartTuple{part->region, part->at, reinterpret_cast<std::uintptr_t>(part->memory), part->bytes};
}

inline void part_done(staging::Capture& capture, std::size_t region, std::uint64_t offset) {
  const Error error = without_gil([&] { return capture.foreign_done(region, offset); });
  if (error) raise(error);
}

}  // namespace pccl::bindings
