#pragma once
// Streaming stores are weakly ordered: what follows them for others to see waits here. For the files that
// call kernels, not for those that are compiled for an instruction set.

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace pccl::kernels {

inline void fence(bool streaming) {
#if defined(__x86_64__)
  if (streaming) _mm_sfence();
#else
  (void)streaming;
#endif
}

}  // namespace pccl::kernels
