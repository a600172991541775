#pragma once

#include <cstddef>

namespace convolith {

inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

/// Under AddressSanitizer a block is as long as was asked for and freed at once, so that every
/// access beyond its end or its life is seen.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kKeepsBlocks = false;
#else
inline constexpr bool kKeepsBlocks = true;
#endif

/// Memory for std::free, aligned to kAlignment; from `huge_from` bytes on it begins on a huge page
/// and asks for more of them, against page faults and TLB misses. Null where it cannot be had.
void* allocate_pages(std::size_t bytes, std::size_t huge_from) noexcept;

/// Returns the whole pages of a piece of such memory to the system; what is read there is zeros, or
/// what it was.
void release_pages(void* data, std::size_t bytes) noexcept;

}  // namespace convolith
