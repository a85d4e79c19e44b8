#include "bindings/peer.hpp"
#include "runtime/completions.hpp"

namespace pccl::bindings {

// Dropped before its end: the caller's memory goes away, so nothing may touch it any more. Wait for the fate
// of it.
OperationObject::~OperationObject() {
  if (handle == nullptr || runtime == nullptr || runtime->forked() || handle->result.done()) return;
  runtime->cancel(handle, "its Work was dropped before it ended");
  without_gil([this] {
    while (!handle->result.wait_for(second) && runtime->running()) {
    }
  });
}

namespace {

py::tuple result_of(const OperationObject& self) {
  if (!self.handle->result.done()) raise({ErrorCode::usage, "the operation still runs: wait() for it"});
  const auto r = self.handle->result.get();
  return py::make_tuple(int(r.outcome.error.code), r.outcome.error.text, r.outcome.contributors,
                        r.outcome.waiting, r.outcome.attempts, r.bytes_sent, r.bytes_received,
                        double(r.took) * 1e-9, r.weight, double(r.to_result) * 1e-9, r.skipped, r.fed_back);
}

bool wait(const OperationObject& self, double seconds) {
  if (self.runtime->forked())
    raise({ErrorCode::usage, "a forked child cannot wait for its parent's operation"});
  if (self.handle->result.done()) return true;
  const PeerRuntime::Blocked blocked(*self.runtime);
  return wait_with_signals(seconds, [&](Duration time) { return self.handle->result.wait_for(time); });
}

void notify(const OperationObject& self, std::shared_ptr<Completions> completions, std::uint64_t number) {
  self.handle->result.then([completions = std::move(completions), number] { completions->push(number); });
}

std::optional<std::uint64_t> take(Completions& self, double seconds) {
  std::optional<std::uint64_t> ended;
  wait_with_signals(seconds, [&](Duration time) { return (ended = self.take(time)).has_value(); });
  return ended;
}

}  // namespace

void bind_operation(py::module_& module) {
  py::class_<Completions, std::shared_ptr<Completions>>(module, "Completions")
      .def(py::init<>())
      .def("push", &Completions::push, py::arg("number"))
      .def("take", &take, py::arg("seconds"));
  py::class_<OperationObject, std::shared_ptr<OperationObject>>(module, "Operation")
      .def("wait", &wait, py::arg("seconds"))
      .def("done", [](const OperationObject& self) { return self.handle->result.done(); })
      .def("cancel", [](const OperationObject& self) { self.runtime->cancel(self.handle); })
      .def("notify", &notify, py::arg("completions"), py::arg("number"))
      .def("result", &result_of);
}

}  // namespace pccl::bindings
