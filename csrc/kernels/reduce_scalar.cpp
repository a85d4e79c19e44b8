// The kernels on the architecture's baseline: SSE2 on x86-64, NEON on aarch64.

#include "kernels/isa_scalar.hpp"
#include "kernels/reduce_kernels.hpp"

namespace pccl::kernels {
namespace {

constexpr Table table = make_table<Scalar>(Level::scalar);

}  // namespace

const Table& scalar_table() { return table; }

}  // namespace pccl::kernels
