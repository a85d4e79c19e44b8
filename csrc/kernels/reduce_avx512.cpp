// The kernels on AVX-512 (F, BW, DQ, VL), built with the flags of reduce_avx2.cpp and -mavx512{f,bw,dq,vl}.
// Run only after dispatch.cpp has asked the CPU.
#if defined(__x86_64__)

#include "kernels/isa_avx512.hpp"
#include "kernels/reduce_kernels.hpp"

namespace pccl::kernels {
namespace {

constexpr Table table = make_table<Avx512>(Level::avx512);

}  // namespace

const Table& avx512_table() { return table; }

}  // namespace pccl::kernels

#endif
