// Coded sums as Python posts them: numbers and addresses, checked before anything is written.
#include "bindings/peer.hpp"

namespace pccl::bindings {

namespace {

using SumNumbers = std::pair<std::uint32_t, std::vector<std::tuple<std::uint32_t, std::uint32_t, int>>>;

// `sums`: owner, and of each term rank, block and coefficient.
CodedRequest coded_request(const std::vector<SumNumbers>& sums, std::uint32_t rank, std::uint32_t world,
                           const std::vector<std::pair<std::uintptr_t, std::uint64_t>>& blocks,
                           const std::vector<std::uintptr_t>& outputs, std::uint64_t block_bytes) {
  auto table = std::make_shared<CodedSums>();
  for (const auto& [owner, terms] : sums) {
    auto& sum = table->emplace_back(CodedSum{.owner = owner});
    for (const auto& [position, block, coefficient] : terms)
      sum.terms.push_back({position, block, std::uint8_t(coefficient)});
  }
  CodedRequest request{std::move(table), rank, world, {}, {}, block_bytes};
  for (const auto& [at, bytes] : blocks)
    request.blocks.emplace_back(reinterpret_cast<const std::uint8_t*>(at), bytes);
  for (const auto at : outputs) request.outputs.push_back(reinterpret_cast<std::uint8_t*>(at));
  return request;
}

std::shared_ptr<OperationObject> post_coded(
    const PeerObject& self, std::uint32_t name, double seconds, std::uint32_t rank, std::uint32_t world,
    const std::vector<SumNumbers>& sums, const std::vector<std::pair<std::uintptr_t, std::uint64_t>>& blocks,
    const std::vector<std::uintptr_t>& outputs, std::uint64_t block_bytes, std::uint64_t rate_limit,
    py::object keep) {
  check_not_forked(self);
  PostRequest request;
  request.coded = coded_request(sums, rank, world, blocks, outputs, block_bytes);
  if (auto why = fault_of(*request.coded)) raise(why);
  request.rate_limit = rate_limit;
  request.posting.name = name;
  request.posting.timeout = duration_of(seconds);
  auto& d = request.posting.descriptor;
  d.call = Call::coded_reduce;
  d.on_loss = OnLoss::raise;
  d.blocks = world;
  d.sums = fingerprint(*request.coded->sums);
  d.tensors.push_back({DType::uint8, block_bytes});
  auto object = std::make_shared<OperationObject>();
  object->runtime = self.runtime;
  object->keep = Keep(std::move(keep));
  object->handle = self.runtime->post(std::move(request));
  return object;
}

}  // namespace

void bind_coded(py::class_<PeerObject>& peer) {
  peer.def("post_coded", &post_coded, py::kw_only(), py::arg("name"), py::arg("seconds"), py::arg("rank"),
           py::arg("world"), py::arg("sums"), py::arg("blocks"), py::arg("outputs"), py::arg("block_bytes"),
           py::arg("rate_limit"), py::arg("keep"));
}

}  // namespace pccl::bindings
