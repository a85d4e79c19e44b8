// The kernels on NEON, which every aarch64 CPU has.
#if defined(__aarch64__)

#include "kernels/isa_neon.hpp"
#include "kernels/reduce_kernels.hpp"

namespace pccl::kernels {
namespace {

constexpr Table table = make_table<Neon>(Level::neon);

}  // namespace

const Table& neon_table() { return table; }

}  // namespace pccl::kernels

#endif
