#pragma once
// Rounding to nearest, with subnormals, while it lives; then the calling thread's modes again. A thread
// inherits them from whoever started it, and equal bits on all peers must not depend on that.

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace pccl::kernels {

class DefaultFloatModes {
 public:
  DefaultFloatModes() : saved_(get()) {
    if (saved_ != usual) set(usual);
  }
  ~DefaultFloatModes() {
    if (saved_ != usual) set(saved_);
  }
  DefaultFloatModes(const DefaultFloatModes&) = delete;
  DefaultFloatModes& operator=(const DefaultFloatModes&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr std::uint64_t usual = 0x1f80;
  static std::uint64_t get() { return _mm_getcsr() & ~0x3fu; }  // less the flags of what happened
  static void set(std::uint64_t modes) { _mm_setcsr(static_cast<unsigned>(modes)); }
#elif defined(__aarch64__)
  static constexpr std::uint64_t usual = 0;
  static std::uint64_t get() {
    std::uint64_t modes;
    asm volatile("mrs %0, fpcr" : "=r"(modes));
    return modes;
  }
  static void set(std::uint64_t modes) { asm volatile("msr fpcr, %0" : : "r"(modes)); }
#else
  static constexpr std::uint64_t usual = 0;
  static std::uint64_t get() { return usual; }
  static void set(std::uint64_t) {}
#endif
  std::uint64_t saved_;
};

}  // namespace pccl::kernels
