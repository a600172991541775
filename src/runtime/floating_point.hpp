#pragma once

#if !defined(__SSE__)
#include <cfenv>
#endif

namespace convolith {

/// While it lives, the calling thread rounds to nearest, keeps subnormal numbers and traps no
/// exception, as kernels expect; then its mode and flags are what they were. A thread inherits
/// the mode of the one that made it: OpenMP's must not keep what a caller had set.
class DefaultFloatingPoint {
 public:
  DefaultFloatingPoint(const DefaultFloatingPoint&) = delete;
  DefaultFloatingPoint& operator=(const DefaultFloatingPoint&) = delete;

#if defined(__SSE__)
  DefaultFloatingPoint() noexcept : before_(__builtin_ia32_stmxcsr()) {
    if ((before_ & ~kFlags) != kDefault) __builtin_ia32_ldmxcsr(kDefault);
  }
  ~DefaultFloatingPoint() { __builtin_ia32_ldmxcsr(before_); }

 private:
  static constexpr unsigned kDefault = 0x1F80, kFlags = 0x3F;
  unsigned before_;
#else
  DefaultFloatingPoint() noexcept {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatingPoint() { std::fesetenv(&before_); }

 private:
  std::fenv_t before_;
#endif
};

/// Whether the calling thread computes with subnormal numbers: for tests. Never, on processors that
/// do not tell.
class SubnormalWatch {
 public:
#if defined(__SSE__)
  SubnormalWatch() noexcept { __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() & ~kOperand); }
  bool met() const noexcept { return (__builtin_ia32_stmxcsr() & kOperand) != 0; }

 private:
  static constexpr unsigned kOperand = 2;
#else
  bool met() const noexcept { return false; }
#endif
};

}  // namespace convolith
