#include "runtime/pages.hpp"

#include <cstdlib>

#include <sys/mman.h>

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

}  // namespace convolith
