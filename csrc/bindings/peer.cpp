#include "bindings/peer.hpp"

#include <bit>

#include "kernels/quantize.hpp"
#include "net/address.hpp"
#include "protocol/hindrances.hpp"

namespace pccl::bindings {

void check_not_forked(const PeerObject& self) {
  if (self.runtime->forked())
    raise({ErrorCode::usage,
           "this process was forked from the one that connected: a child must join the run itself"});
}

namespace {

Bytes bytes_of(const py::bytes& raw) {
  const auto text = std::string(raw);
  return {text.begin(), text.end()};
}

std::unique_ptr<PeerObject> create(std::string address, std::string island, std::uint16_t island_rank,
                                   std::uint16_t island_size, std::uint32_t group, int role,
                                   std::uint32_t min_islands, std::string listen,
                                   std::vector<std::string> advertise, const py::bytes& secret, bool encrypt,
                                   bool insecure, const Timing& timing, std::string congestion_control,
                                   std::uint8_t stripes, bool checksum, std::string run_name,
                                   std::uint32_t start_rank, std::string host_id, bool deterministic,
                                   const std::string& transport, std::size_t recorded_events,
                                   std::string trace_folder) {
  PeerOptions options;
  options.master = std::move(address);
  if (island.size() > limits::name_bytes_max)
    raise({ErrorCode::usage, "an island's name has at most 256 bytes"});
  if (run_name.size() > limits::name_bytes_max)
    raise({ErrorCode::usage, "a run's name has at most 256 bytes"});
  if (host_id.size() > limits::name_bytes_max)
    raise({ErrorCode::usage, "a host's label has at most 256 bytes"});
  if (role < 1 || role > last_of<Role>) raise({ErrorCode::usage, "unknown role"});
  options.join.island = std::move(island);
  options.join.island_rank = island_rank;
  options.join.island_size = island_size;
  options.join.group = group;
  options.join.role = static_cast<Role>(role);
  options.join.min_islands = min_islands;
  options.join.run_name = std::move(run_name);
  options.join.start_rank = start_rank;
  options.join.host_id = std::move(host_id);
  options.join.deterministic = deterministic;
  options.listen = std::move(listen);
  options.advertise = std::move(advertise);
  options.secret = {bytes_of(secret), encrypt};
  options.insecure = insecure;
  options.timing = timing;
  options.congestion = std::move(congestion_control);
  options.stripes = stripes;
  options.checksum = checksum;
  const auto ways = ways_of_transport(transport);
  if (!ways) raise({ErrorCode::usage, "transport=" + transport + ": it is auto, tcp, shm or cma"});
  options.ways = *ways;
  options.recorded_events = std::min<std::size_t>(recorded_events, Recorder::events_max);
  options.trace_folder = std::move(trace_folder);
  options.log = logger();
  auto runtime = without_gil([&] { return PeerRuntime::create(std::move(options)); });
  if (!runtime) raise(runtime.error());
  return std::make_unique<PeerObject>(PeerObject{std::shared_ptr<PeerRuntime>(std::move(*runtime))});
}

void connect(const PeerObject& self, double seconds) {
  check_not_forked(self);
  const auto admitted = self.runtime->admitted();
  if (!wait_with_signals(seconds, [&](Duration time) { return admitted->wait_for(time); }))
    raise(without_gil([&] { return self.runtime->not_admitted(duration_of(seconds)); }));
  if (const auto error = admitted->get()) raise(error);
}

// Kind, elements of a block, whether rounding is stochastic, whether who is not finite is skipped.
using QuantizationNumbers = std::tuple<int, std::uint32_t, bool, bool>;

void set_quantization(Descriptor& d, const QuantizationNumbers& quantization) {
  const auto [kind, block, stochastic, skips] = quantization;
  if (kind < 1 || kind > last_of<Quantization>) raise({ErrorCode::usage, "unknown quantization"});
  d.quantization = static_cast<Quantization>(kind);
  if (d.quantization == Quantization::none) return;
  d.quantization_block = block;
  d.stochastic = stochastic;
  d.skips = skips;
  if (skips && d.op != ReduceOp::avg) raise({ErrorCode::usage, "only an average can skip peers"});
}

bool codec_exists(const Descriptor& d, DType dtype) {
  return valid(dtype) &&
         kernels::Codec::of({d.quantization, d.quantization_block, d.stochastic}, dtype).has_value();
}

std::shared_ptr<OperationObject> post(
    const PeerObject& self, int call, int scope, std::uint32_t name, int op, PeerId root,
    std::optional<double> weight, int on_loss, double seconds, int algorithm,
    const QuantizationNumbers& quantization, std::uint32_t blocks, std::uint32_t peers,
    const std::pair<PeerId, PeerId>& ends,
    const std::vector<std::tuple<std::uintptr_t, std::uintptr_t, std::uint64_t, int>>& tensors,
    const std::vector<std::pair<std::uintptr_t, std::uintptr_t>>& residuals, py::object keep) {
  check_not_forked(self);
  if (call < 1 || call > last_of<Call> || scope < 1 || scope > last_of<Scope> || op < 1 ||
      op > last_of<ReduceOp> || on_loss < 1 || on_loss > last_of<OnLoss> || algorithm < 1 ||
      algorithm > last_of<Algorithm>)
    raise({ErrorCode::usage, "unknown call, scope, op, on_loss or algorithm"});
  if (on_loss == int(OnLoss::remake) && call != int(Call::all_reduce))
    raise({ErrorCode::usage, "the inputs of an all_reduce alone can be made again"});
  if (tensors.size() > limits::tensors_max) raise({ErrorCode::usage, "too many tensors in one operation"});
  PostRequest request;
  request.weight = weight;
  request.posting.scope = static_cast<Scope>(scope);
  request.posting.name = name;
  request.posting.timeout = duration_of(seconds);
  request.posting.peers = peers;
  auto& d = request.posting.descriptor;
  d.call = static_cast<Call>(call);
  d.op = static_cast<ReduceOp>(op);
  d.root = root;
  d.on_loss = static_cast<OnLoss>(on_loss);
  d.algorithm = static_cast<Algorithm>(algorithm);
  d.blocks = blocks;
  std::tie(request.posting.from, request.posting.to) = ends;
  if ((d.call == Call::transfer) != (request.posting.scope == Scope::pair))
    raise({ErrorCode::usage, "a pair sends and receives, and nobody else does"});
  if (in_blocks(d.call) != (blocks > 0) || blocks > limits::members_max)
    raise({ErrorCode::usage, "blocks belong to calls in blocks"});
  set_quantization(d, quantization);
  if (d.skips && !weight) request.weight = 1.0;  // its skipped peers weigh nothing
  d.weighted = request.weight.has_value();
  if (!residuals.empty() && (residuals.size() != tensors.size() || d.quantization == Quantization::none))
    raise({ErrorCode::usage, "residuals belong to the tensors of a quantized operation"});
  for (const auto& [in, out] : residuals)
    request.residuals.push_back(
        {reinterpret_cast<const std::uint8_t*>(in), reinterpret_cast<std::uint8_t*>(out)});
  for (const auto& [in, out, count, dtype] : tensors) {
    if (d.quantization != Quantization::none && !codec_exists(d, static_cast<DType>(dtype)))
      raise({ErrorCode::usage, "no such quantization of this dtype"});
    if (!valid(static_cast<DType>(dtype)) || count > limits::elements_max)
      raise({ErrorCode::usage, "unknown dtype, or too large a tensor"});
    d.tensors.push_back({static_cast<DType>(dtype), count});
    request.tensors.push_back({reinterpret_cast<const std::uint8_t*>(in),
                               reinterpret_cast<std::uint8_t*>(out), count, static_cast<DType>(dtype)});
  }
  auto object = std::make_shared<OperationObject>();
  object->runtime = self.runtime;
  object->keep = Keep(std::move(keep));
  const auto posted = [&] { return self.runtime->post(std::move(request)); };
  object->handle = d.skips ? without_gil(posted) : posted();  // skipping looks at all values first
  return object;
}

BoundaryResult pass_boundary(const PeerObject& self, std::uint32_t islands, double seconds,
                             std::uint32_t probe_ms) {
  check_not_forked(self);
  const auto passed = self.runtime->enter_boundary(islands, duration_of(seconds), probe_ms);
  const PeerRuntime::Blocked blocked(*self.runtime);
  try {
    wait_with_signals(-1, [&](Duration time) { return passed->wait_for(time); });
  } catch (...) {
    without_gil([&] { self.runtime->leave_boundary(passed); });
    throw;
  }
  auto result = passed->get();
  if (result.error) raise(result.error);
  return result;
}

bool update_topology(const PeerObject& self, std::uint32_t islands, double seconds) {
  return pass_boundary(self, islands, seconds, 0).changed;
}

// What the probes said about this peer's group: adopted, bandwidth before and now, latency before and now,
// links, measured. None where the group was not looked at.
py::object optimize_topology(const PeerObject& self, double seconds, std::uint32_t probe_ms) {
  const auto result = pass_boundary(self, 0, seconds, probe_ms);
  const auto status = self.runtime->status(false);
  const auto* me = status.view.find(status.peer);
  for (const auto& r : result.rings)
    if (me != nullptr && r.group == me->group)
      return py::make_tuple(r.adopted, r.bandwidth_before, r.bandwidth, r.latency_before_us, r.latency_us,
                            r.links, r.measured);
  return py::none();
}

std::unique_ptr<StateObject> sync_state(const PeerObject& self, int scope, std::uint32_t name,
                                        double seconds) {
  check_not_forked(self);
  Posting posting;
  posting.scope = scope == int(Scope::run) ? Scope::run : Scope::group;
  posting.name = name;
  posting.timeout = duration_of(seconds);
  posting.descriptor.call = Call::sync_state;
  return std::make_unique<StateObject>(self.runtime, self.runtime->post_state(std::move(posting)));
}

py::list members(const PeerObject& self) {
  py::list all;
  for (const auto& m : self.runtime->status(false).view.members) {
    std::vector<std::string> addresses;
    for (const auto& a : m.reachable_at) addresses.push_back(net::text_of(a));
    all.append(py::make_tuple(m.peer, m.island, m.island_rank, m.group, int(m.role), addresses, m.host));
  }
  return all;
}

py::dict links(const PeerObject& self) {
  const auto status = without_gil([&] { return self.runtime->status(true); });
  py::dict all;
  for (const auto& [peer, info] : status.links) {
    py::dict one;
    one["stripes"] = info.stripes;
    one["congestion_control"] = info.congestion;
    one["path"] = std::array{"host", "lan", "wan"}[std::size_t(info.path)];
    one["rtt_s"] = info.rtt == never ? 0.0 : double(info.rtt) / double(second);
    one["mended"] = info.mended;
    one["remote"] = info.remote;
    one["transport"] = info.transport;
    one["bytes_sent"] = info.bytes_out;
    one["bytes_received"] = info.bytes_in;
    all[py::int_(peer)] = one;
  }
  return all;
}

py::dict totals(const PeerObject& self) {
  const auto status = without_gil([&] { return self.runtime->status(false); });
  const auto& t = status.totals;
  py::dict all;
  all["operations_committed"] = t.committed;
  all["operations_failed"] = t.failed;
  all["attempts_redone"] = t.redone;
  all["bytes_sent"] = t.bytes_sent;
  all["bytes_received"] = t.bytes_received;
  all["operation_seconds"] = double(t.in_operations) * 1e-9;
  all["views"] = t.views;
  all["links_lost"] = t.links_lost;
  return all;
}

void show(const PeerObject& self, const std::vector<std::pair<std::string, double>>& figures) {
  check_not_forked(self);
  if (figures.size() > limits::figures_max) raise({ErrorCode::usage, "too many figures"});
  std::vector<Figure> all;
  for (const auto& [figure, value] : figures) all.push_back({figure, std::bit_cast<std::uint64_t>(value)});
  self.runtime->show(std::move(all));
}

// As in a dump: any thread, also while the I/O thread is stuck, or over.
py::bytes events(const PeerObject& self) {
  const auto copied = without_gil([&] { return self.runtime->recorder().copy(); });
  return {reinterpret_cast<const char*>(copied.data()), copied.size()};
}

constexpr const char* state_names[] = {"posted", "running", "held", "abandoned"};

py::dict link_now(const LinkNow& link, Instant now) {
  const auto ago = [&](Instant at) { return at == 0 ? -1.0 : double(now - at) * 1e-9; };
  py::dict one;
  one["peer"] = link.flow.peer;
  one["ready"] = link.ready;
  one["source"] = link.source;
  one["unread_bytes"] = link.unread;
  one["bytes_sent"] = link.flow.sent;
  one["bytes_received"] = link.flow.received;
  one["sent_ago_s"] = ago(link.flow.last_sent);
  one["received_ago_s"] = ago(link.flow.last_received);
  one["queued_bytes"] = link.queued;
  one["offered_chunks"] = link.offered;
  one["full"] = link.to_send;
  one["full_s"] = double(link.full) * 1e-9;
  return one;
}

py::dict operation_now(const OperationNow& operation, Instant now) {
  py::dict one;
  one["call"] = std::string(name(operation.call));
  one["name"] = describe(operation.key);
  one["state"] = state_names[std::size_t(operation.state)];
  one["age_s"] = double(operation.age) * 1e-9;
  one["attempts"] = operation.attempts;
  one["bytes"] = operation.bytes;
  one["bytes_sent"] = operation.sent;
  one["bytes_received"] = operation.received;
  one["missing"] = operation.missing;
  py::list hindrances;
  for (const auto& h : operation.hindrances)
    hindrances.append(py::make_tuple(h.peer, name(h.trouble), h.other, in_words(h)));
  one["hindrances"] = hindrances;
  py::list links;
  for (const auto& link : operation.links) links.append(link_now(link, now));
  one["links"] = links;
  return one;
}

// What runs now; None where the I/O thread has not answered within a second.
py::object diagnose(const PeerObject& self) {
  check_not_forked(self);
  const auto found = without_gil([&] { return self.runtime->diagnose(second); });
  if (!found) return py::none();
  py::dict all;
  all["peer"] = found->peer;
  all["view"] = py::make_tuple(found->view.incarnation, found->view.number);
  all["master"] = found->master;
  all["at_boundary"] = found->at_boundary;
  py::list operations;
  for (const auto& operation : found->operations) operations.append(operation_now(operation, found->now));
  all["operations"] = operations;
  return all;
}

const char* stage_name(Session::Stage stage) {
  constexpr const char* names[] = {"joining", "door", "member", "gone"};
  return names[static_cast<int>(stage)];
}

}  // namespace

void bind_peer(py::module_& module) {
  py::class_<PeerObject> peer(module, "Peer");
  peer.def(py::init(&create), py::arg("address"), py::kw_only(), py::arg("island"), py::arg("island_rank"),
           py::arg("island_size"), py::arg("group"), py::arg("role"), py::arg("min_islands"),
           py::arg("listen"), py::arg("advertise"), py::arg("secret"), py::arg("encrypt"),
           py::arg("insecure"), py::arg("timing"), py::arg("congestion_control"), py::arg("stripes"),
           py::arg("checksum"), py::arg("run_name"), py::arg("start_rank"), py::arg("host_id"),
           py::arg("deterministic"), py::arg("transport"), py::arg("recorded_events"),
           py::arg("trace_folder"))
      .def("connect", &connect, py::arg("seconds"))
      .def("post", &post, py::kw_only(), py::arg("call"), py::arg("scope"), py::arg("name"), py::arg("op"),
           py::arg("root"), py::arg("weight"), py::arg("on_loss"), py::arg("seconds"), py::arg("algorithm"),
           py::arg("quantization"), py::arg("blocks"), py::arg("peers"), py::arg("ends"), py::arg("tensors"),
           py::arg("residuals"), py::arg("keep"))
      .def("update_topology", &update_topology, py::arg("islands"), py::arg("seconds"))
      .def("optimize_topology", &optimize_topology, py::arg("seconds"), py::arg("probe_ms"))
      .def("ring", [](const PeerObject& self,
                      std::uint32_t group) { return self.runtime->status(false).view.ring(group); })
      .def("sync_state", &sync_state, py::kw_only(), py::arg("scope"), py::arg("name"), py::arg("seconds"))
      .def("members", &members)
      .def("view",
           [](const PeerObject& self) {
             const auto view = self.runtime->status(false).view;
             return py::make_tuple(view.id.incarnation, view.id.number, view.boundaries);
           })
      .def("links", &links)
      .def("totals", &totals)
      .def("show", &show, py::arg("figures"))
      .def("events", &events)
      .def(
          "pause_recorder", [](PeerObject& self, bool paused) { self.runtime->pause_recorder(paused); },
          py::arg("paused"))
      .def("diagnose", &diagnose)
      .def_property_readonly("trace_file",
                             [](const PeerObject& self) { return self.runtime->recorder().file(); })
      .def("stage", [](const PeerObject& self) { return stage_name(self.runtime->status(false).stage); })
      .def("end",
           [](const PeerObject& self) {
             const auto end = self.runtime->status(false).end;
             return py::make_tuple(int(end.code), end.text);
           })
      .def("leave",
           [](const PeerObject& self) {
             without_gil([&] {
               if (!self.runtime->forked()) self.runtime->leave(2 * second);
               self.runtime->close();
             });
           })
      .def("close", [](const PeerObject& self) { without_gil([&] { self.runtime->close(); }); })
      .def_property_readonly("peer_id",
                             [](const PeerObject& self) { return self.runtime->status(false).peer; })
      .def_property_readonly("island",
                             [](const PeerObject& self) { return self.runtime->status(false).island; })
      .def_property_readonly("waiting",
                             [](const PeerObject& self) { return self.runtime->status(false).waiting; });
  bind_coded(peer);
}

}  // namespace pccl::bindings
