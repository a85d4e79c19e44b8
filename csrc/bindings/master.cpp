#include <bit>
#include <cmath>

#include "bindings/common.hpp"
#include "bindings/python_store.hpp"
#include "protocol/hindrances.hpp"
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

Holder create(std::string listen, const py::bytes& secret, bool encrypt, bool insecure, const Timing& timing,
              const std::string& state_dir, const py::object& store) {
  const auto text = std::string(secret);
  MasterOptions options{
      std::move(listen), {{text.begin(), text.end()}, encrypt}, insecure, timing, logger(), nullptr};
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

py::dict of_member(const MemberReport& m) {
  py::dict one;
  one["peer"] = m.member.peer;
  one["island"] = m.member.island;
  one["group"] = m.member.group;
  one["role"] = m.member.role == Role::keeper ? "keeper" : "trainer";
  one["host"] = readable(m.host_name);
  one["process"] = m.process;
  one["silent_s"] = double(m.silent) * 1e-9;
  one["connected"] = m.connected;
  py::dict figures;
  for (const auto& f : m.figures)
    if (const auto value = std::bit_cast<double>(f.bits); std::isfinite(value))
      figures[readable(f.name)] = value;
  one["figures"] = figures;
  one["waits_in"] = m.waits_in ? name(*m.waits_in) : "";
  return one;
}

py::dict of_operation(const OperationReport& o) {
  py::dict one;
  one["call"] = o.call ? name(*o.call) : "";
  one["name"] = readable(describe(o.key));
  one["age_s"] = double(o.age) * 1e-9;
  one["done"] = o.done;
  one["voters"] = o.voters;
  one["absent"] = o.absent;
  py::list hindrances;
  for (const auto& h : o.hindrances)
    hindrances.append(py::make_tuple(h.peer, name(h.trouble), h.other, readable(in_words(h))));
  one["hindrances"] = hindrances;
  return one;
}

py::dict of_run(const RunReport& r) {
  py::dict all;
  py::list members, links, operations;
  for (const auto& m : r.members) members.append(of_member(m));
  for (const auto& l : r.links)
    links.append(py::make_tuple(l.from, l.to, l.link.bandwidth, double(l.link.rtt) * 1e-9));
  for (const auto& o : r.operations) operations.append(of_operation(o));
  all["view"] = py::make_tuple(r.view.incarnation, r.view.number);
  all["boundaries"] = r.boundaries;
  all["waiting"] = r.waiting;
  all["phase"] = r.phase;
  all["door"] = r.door;
  all["commits"] = r.tally.commits;
  all["failures"] = r.tally.failures;
  all["views"] = r.tally.views;
  all["removed"] = r.tally.removed;
  all["members"] = members;
  all["rings"] = r.rings;
  all["links"] = links;
  all["operations"] = operations;
  all["operations_open"] = r.operations_open;
  py::list failures;
  for (const auto& f : r.failures)
    failures.append(py::make_tuple(double(f.age) * 1e-9, name(f.kind), readable(f.text)));
  all["recent_failures"] = failures;
  return all;
}

// None where its thread has not answered within a second.
py::object report(const MasterRuntime& self) {
  const auto found = without_gil([&] { return self.report(second); });
  if (!found) return py::none();
  py::dict all, runs;
  for (const auto& [name, run] : found->runs) runs[readable(name)] = of_run(run);
  py::list events;
  for (const auto& e : found->events)
    events.append(py::make_tuple(double(e.wall_ms) * 1e-3, readable(e.run), readable(e.text)));
  all["runs"] = runs;
  all["events"] = events;
  all["events_written"] = found->events_written;
  return all;
}

}  // namespace

void bind_master(py::module_& module) {
  py::class_<MasterRuntime, Holder>(module, "Master")
      .def(py::init(&create), py::arg("listen"), py::arg("secret"), py::arg("encrypt"), py::arg("insecure"),
           py::arg("timing"), py::arg("state_dir") = "", py::arg("store") = py::none())
      .def_property_readonly("address",
                             [](const MasterRuntime& self) { return net::text_of(self.address()); })
      .def("addresses",
           [](const MasterRuntime& self) {
             std::vector<std::string> all;
             for (const auto& address : self.reachable()) all.push_back(net::text_of(address));
             return all;
           })
      .def("status", &status)
      .def("report", &report)
      .def_property_readonly("fenced", [](const MasterRuntime& self) { return self.status().fenced; })
      .def(
          "serve_until", [](MasterRuntime& self, double end_s) { self.serve_until(on_our_clock(end_s)); },
          py::arg("monotonic_s"), "Past that moment of time.monotonic() nothing is sent, unless moved on.")
      .def("fence", &MasterRuntime::fence, py::arg("why"))
      .def("stop", [](MasterRuntime& self) { without_gil([&] { self.stop(); }); });
}

}  // namespace pccl::bindings
