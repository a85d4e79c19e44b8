#include "bindings/common.hpp"
#include "bindings/python_store.hpp"
#include "runtime/file_store.hpp"
#include "runtime/master_runtime.hpp"

namespace pccl::bindings {

namespace {

// Without the GIL: its thread may want it for a store that is written in Python.
struct Ended {
  void operator()(MasterRuntime* master) const {
    without_gil([&] { delete master; });
  }
};
using Holder = std::unique_ptr<MasterRuntime, Ended>;

Holder create(std::string listen, const py::bytes& secret, bool insecure, const Timing& timing,
              const std::string& state_dir, const py::object& store) {
  const auto text = std::string(secret);
  MasterOptions options{std::move(listen), {text.begin(), text.end()}, insecure, timing, logger(), nullptr};
  if (!state_dir.empty()) {
    auto folder = FileStore::open(state_dir);
    if (!folder) raise(folder.error());
    options.store = std::move(*folder);
  } else if (!store.is_none()) {
    options.store = std::make_unique<PythonStore>(store);
  }
  auto master = MasterRuntime::create(std::move(options));
  if (!master) raise(master.error());
  return Holder(master->release());
}

// time.monotonic() reads the clock that ours is.
Instant on_our_clock(double seconds) {
  return seconds >= 0 && seconds < 1e9 ? Instant(seconds * double(second)) : never;
}

py::dict status(const MasterRuntime& self) {
  const auto s = self.status();
  py::dict all;
  for (const auto role : {Role::trainer, Role::keeper}) {
    const auto it = s.rosters.find(role);
    const auto roster = it == s.rosters.end() ? RosterStatus{} : it->second;
    py::list peers;
    for (const auto& m : roster.view.members) peers.append(py::make_tuple(m.peer, m.island, m.group));
    py::dict one = role == Role::trainer ? all : py::dict();
    one["view"] = roster.view.id.number;
    one["peers"] = peers;
    one["waiting"] = roster.waiting;
    if (role == Role::keeper) all["keepers"] = one;
  }
  all["runs"] = s.peers;
  all["departures"] = s.departures;
  all["fenced"] = s.fenced;
  return all;
}

}  // namespace

void bind_master(py::module_& module) {
  py::class_<MasterRuntime, Holder>(module, "Master")
      .def(py::init(&create), py::arg("listen"), py::arg("secret"), py::arg("insecure"), py::arg("timing"),
           py::arg("state_dir") = "", py::arg("store") = py::none())
      .def_property_readonly("address",
                             [](const MasterRuntime& self) { return net::text_of(self.address()); })
      .def("addresses",
           [](const MasterRuntime& self) {
             std::vector<std::string> all;
             for (const auto& address : self.reachable()) all.push_back(net::text_of(address));
             return all;
           })
      .def("status", &status)
      .def_property_readonly("fenced", [](const MasterRuntime& self) { return self.status().fenced; })
      .def(
          "serve_until", [](MasterRuntime& self, double end_s) { self.serve_until(on_our_clock(end_s)); },
          py::arg("monotonic_s"), "Past that moment of time.monotonic() nothing is sent, unless moved on.")
      .def("fence", &MasterRuntime::fence, py::arg("why"))
      .def("stop", [](MasterRuntime& self) { without_gil([&] { self.stop(); }); });
}

}  // namespace pccl::bindings
