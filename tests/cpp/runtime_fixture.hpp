// A master and peers as threads of one process, over real sockets: what sanitizers can see of the runtime.
#pragma once
#include <functional>
#include <thread>

#include "check.hpp"
#include "runtime/master_runtime.hpp"
#include "runtime/peer_runtime.hpp"

namespace pccl::testing {

struct Run {
  std::unique_ptr<MasterRuntime> master;
  Timing timing;

  explicit Run(Timing t = {}, net::Secret secret = {}) : timing(t) {
    MasterOptions options;
    options.timing = timing;
    options.secret = secret;
    auto created = MasterRuntime::create(std::move(options));
    if (created) master = std::move(*created);
  }
  PeerOptions options(std::uint32_t min_islands) const {
    PeerOptions o;
    o.master = net::text_of(master->address());
    o.join.min_islands = min_islands;
    o.timing = timing;
    return o;
  }
  std::unique_ptr<PeerRuntime> peer(std::uint32_t min_islands,
                                    std::function<void(PeerOptions&)> change = {}) const {
    auto o = options(min_islands);
    if (change) change(o);
    auto created = PeerRuntime::create(std::move(o));
    return created ? std::move(*created) : nullptr;
  }
  std::vector<std::unique_ptr<PeerRuntime>> peers(std::uint32_t count) const {
    std::vector<std::unique_ptr<PeerRuntime>> all;
    for (std::uint32_t i = 0; i < count; ++i) all.push_back(peer(count));
    for (auto& p : all) (void)p->admitted()->wait_for(10 * second);
    return all;
  }
};

inline Error admitted(PeerRuntime& peer, Duration time = 10 * second) {
  const auto promise = peer.admitted();
  return promise->wait_for(time) ? promise->get() : Error{ErrorCode::timeout, "not admitted"};
}

struct Float32Operation {
  std::vector<float> in, out;
  std::shared_ptr<OperationHandle> handle;
};

// `value` of a peer at index i is a small integer, so that sums are exact.
inline std::shared_ptr<Float32Operation> start_sum(PeerRuntime& peer, std::size_t count, float value,
                                                   bool in_place, std::uint32_t name = 0,
                                                   Scope scope = Scope::group) {
  auto operation = std::make_shared<Float32Operation>();
  operation->in.resize(count);
  for (std::size_t i = 0; i < count; ++i) operation->in[i] = value + float(i % 7);
  operation->out.assign(in_place ? 0 : count, -1.0f);
  PostRequest request;
  request.posting.scope = scope;
  request.posting.name = name;
  request.posting.descriptor.call = Call::all_reduce;
  request.posting.descriptor.tensors = {{DType::float32, count}};
  auto* in = reinterpret_cast<std::uint8_t*>(operation->in.data());
  auto* out = in_place ? in : reinterpret_cast<std::uint8_t*>(operation->out.data());
  request.tensors = {{in, out, count, DType::float32}};
  operation->handle = peer.post(std::move(request));
  return operation;
}

inline OperationResult finish(const Float32Operation& operation, Duration time = 20 * second) {
  if (operation.handle->result.wait_for(time)) return operation.handle->result.get();
  return {{{ErrorCode::timeout, "the test waited too long"}, {}, 0, 0}, 0, 0, 0, 0};
}

inline bool holds(const std::vector<float>& values, float sum_of_values, std::size_t contributors) {
  for (std::size_t i = 0; i < values.size(); ++i)
    if (values[i] != sum_of_values + float(contributors) * float(i % 7)) return false;
  return true;
}

}  // namespace pccl::testing
