#pragma once

#include <cstddef>
#include <memory>

namespace convolith {

/// Memory aligned to kAlignment; std::bad_alloc where it cannot be had.
std::shared_ptr<void> allocate_aligned(std::size_t bytes);

/// Workspace of the calling thread for the lifetime of this object. The arena behind it keeps
/// what it has between calls, up to a limit; objects nest, the inner ones allocating anew.
class Scratch {
 public:
  explicit Scratch(std::size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  void* data() const noexcept { return data_; }

 private:
  void* data_ = nullptr;
  bool from_arena_ = false;
};

/// What memory holds before it is granted as a workspace or for packed weights: for tests.
enum class Poison { none, nan, subnormal };
void set_poison(Poison poison) noexcept;

}  // namespace convolith
