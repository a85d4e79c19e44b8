#include "bindings/peer.hpp"

namespace pccl::bindings {

// Dropped before its end: as with an operation, its memory goes away.
StateObject::~StateObject() {
  if (handle == nullptr || runtime == nullptr || runtime->forked() || handle->done) return;
  runtime->cancel_state(handle, "its sync_shared_state was dropped before it ended");
  without_gil([this] {
    while (runtime->running()) {
      const auto event = handle->events.pop(second);
      if (event && event->kind == StateEvent::Kind::done) return;
    }
  });
}

namespace {

py::bytes bytes_of(const Digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

py::object to_python(const StateEvent& e) {
  switch (e.kind) {
    case StateEvent::Kind::start:
      return py::make_tuple("start", e.attempt);
    case StateEvent::Kind::elected: {
      py::list entries;
      for (std::size_t i = 0; i < e.plan.entries.size(); ++i)
        entries.append(py::make_tuple(i, bytes_of(e.plan.entries[i].entry.root), e.plan.entries[i].donors));
      return py::make_tuple("elected", e.plan.revision, entries);
    }
    case StateEvent::Kind::block:
      return py::make_tuple("block", e.entry, e.hashes, e.offset, e.bytes);
    case StateEvent::Kind::failed:
      return py::make_tuple("failed", e.entry, e.text, e.donor);
    case StateEvent::Kind::done:
      break;
  }
  const auto& r = e.result;
  return py::make_tuple("done", int(r.outcome.error.code), r.outcome.error.text, r.outcome.contributors,
                        r.outcome.waiting, r.outcome.attempts, r.bytes_sent, r.bytes_received,
                        double(r.took) * 1e-9);
}

py::object next(StateObject& self, double seconds) {
  std::optional<StateEvent> event;
  const PeerRuntime::Blocked blocked(*self.runtime);
  const bool came = wait_with_signals(seconds, [&](Duration time) {
    event = self.handle->events.pop(time);
    return event.has_value();
  });
  if (!came) return py::none();
  if (event->kind == StateEvent::Kind::start) self.handle->told = event->view;
  self.handle->done |= event->kind == StateEvent::Kind::done;
  return to_python(*event);
}

using Entry = std::tuple<std::string, int, std::uint64_t, py::bytes>;
using Served = std::tuple<std::uintptr_t, std::uint64_t, std::uintptr_t, std::uint64_t>;

void offer(StateObject& self, std::uint64_t revision, int strategy, const std::vector<Entry>& entries,
           const std::vector<Served>& serve, py::object keep) {
  StateOffer message;
  message.revision = revision;
  if (strategy < 1 || strategy > last_of<Strategy>) raise({ErrorCode::usage, "unknown strategy"});
  message.strategy = static_cast<Strategy>(strategy);
  for (const auto& [name, dtype, count, root] : entries) {
    StateEntry entry{name, static_cast<DType>(dtype), count, {}};
    const auto raw = std::string(root);
    if (!valid(entry.dtype) || raw.size() != entry.root.size() || name.size() > limits::name_bytes_max)
      raise({ErrorCode::usage, "shared state entry '" + name +
                                   "': bad dtype, a root that is not 16 bytes, or too long a name"});
    std::copy(raw.begin(), raw.end(), entry.root.begin());
    message.entries.push_back(std::move(entry));
  }
  std::vector<ServedEntry> served;
  for (const auto& [data, bytes, hashes, hash_bytes] : serve)
    served.push_back({reinterpret_cast<const std::uint8_t*>(data), bytes,
                      reinterpret_cast<const std::uint8_t*>(hashes), hash_bytes});
  self.keep = Keep(std::move(keep));
  self.runtime->offer_state(self.handle, std::move(message), std::move(served));
}

void fetch(StateObject& self, PeerId donor, std::uint32_t entry, bool hashes, std::uint64_t offset,
           std::uint32_t bytes, std::uintptr_t address, bool as_bytes) {
  if (bytes > limits::chunk_bytes_max) raise({ErrorCode::usage, "a block has at most 4 MiB"});
  self.runtime->fetch_block(self.handle, donor, {{}, {}, entry, hashes, offset, bytes, as_bytes},
                            reinterpret_cast<std::uint8_t*>(address));
}

}  // namespace

void bind_state(py::module_& module) {
  py::class_<StateObject>(module, "StateOperation")
      .def("next", &next, py::arg("seconds"))
      .def("offer", &offer, py::arg("revision"), py::arg("strategy"), py::arg("entries"), py::arg("serve"),
           py::arg("keep"))
      .def("fetch", &fetch, py::arg("donor"), py::arg("entry"), py::arg("hashes"), py::arg("offset"),
           py::arg("bytes"), py::arg("address"), py::arg("as_bytes"))
      .def("complete", [](StateObject& self) { self.runtime->complete_state(self.handle); })
      .def("cancel", [](StateObject& self) { self.runtime->cancel_state(self.handle); });
}

}  // namespace pccl::bindings
