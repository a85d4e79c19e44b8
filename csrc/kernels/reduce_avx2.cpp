// The kernels on AVX2 and F16C, built with -mavx2 -mfma -mf16c. Run only after dispatch.cpp has asked the
// CPU.
#if defined(__x86_64__)

#include "kernels/isa_avx2.hpp"
#include "kernels/reduce_kernels.hpp"

namespace pccl::kernels {
namespace {

constexpr Table table = make_table<Avx2>(Level::avx2);

}  // namespace

const Table& avx2_table() { return table; }

}  // namespace pccl::kernels

#endif
