// The codec on AVX-512, built with the flags of reduce_avx512.cpp. Run only after the CPU has been asked.
#if defined(__x86_64__)

#include "kernels/quantize_kernels.hpp"

namespace pccl::kernels {
namespace {

constexpr CodecTable table = make_codecs();

}  // namespace

const CodecTable& avx512_codecs() { return table; }

}  // namespace pccl::kernels

#endif
