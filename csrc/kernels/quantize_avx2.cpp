// The codec on AVX2, built with the flags of reduce_avx2.cpp. Run only after the CPU has been asked.
#if defined(__x86_64__)

#include "kernels/quantize_kernels.hpp"

namespace pccl::kernels {
namespace {

constexpr CodecTable table = make_codecs();

}  // namespace

const CodecTable& avx2_codecs() { return table; }

}  // namespace pccl::kernels

#endif
