// The codec on the architecture's baseline: SSE2 on x86-64, NEON on aarch64.

#include "kernels/quantize_kernels.hpp"

namespace pccl::kernels {
namespace {

constexpr CodecTable table = make_codecs();

}  // namespace

const CodecTable& scalar_codecs() { return table; }

}  // namespace pccl::kernels
