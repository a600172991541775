#include "runtime/pages.hpp"

#include <cstdint>
#include <cstdlib>

#include <sys/mman.h>
#include <unistd.h>

#include "convolith/algorithm.hpp"

namespace convolith {

void* allocate_pages(std::size_t bytes, std::size_t huge_from) noexcept {
  const bool huge = bytes >= huge_from;
  void* data = nullptr;
  if (posix_memalign(&data, huge ? kHugePage : kAlignment, bytes) != 0) return nullptr;
#if defined(MADV_HUGEPAGE)
  if (huge) madvise(data, bytes, MADV_HUGEPAGE);
#endif
  return data;
}

void release_pages(void* data, std::size_t bytes) noexcept {
#if defined(MADV_DONTNEED)
  static const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(data) + page - 1) / page * page;
  const auto end = (reinterpret_cast<std::uintptr_t>(data) + bytes) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
#else
  static_cast<void>(data);
  static_cast<void>(bytes);
#endif
}

}  // namespace convolith
