#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include <pybind11/pybind11.h>

#include "bindings/call.hpp"

namespace convolith {

/// What the plan of a call follows from, as bytes: the dtypes and shapes of its arrays, whatever
/// else it says, and the settings that were in force. Equal bytes mean equal plans, because a value
/// goes in with its type: 3, 3.0 and True differ.
class CallKey {
 public:
  /// `said` is a tuple of Python objects. A key is valid() if it is not very long and holds nothing
  /// but plain arrays, None, and ints, floats, strings, bools and tuples of exactly these types.
  CallKey(const CallArrays& arrays, pybind11::handle said, int threads, Numerics numerics);

  bool valid() const noexcept { return valid_; }
  std::string_view bytes() const noexcept { return {bytes_, size_}; }

 private:
  static constexpr std::size_t kMostBytes = 512;

  void add(const void* data, std::size_t size) noexcept;
  template <class Value>
  void add(char tag, Value value) noexcept;
  void add_array(pybind11::handle object) noexcept;
  void add_object(pybind11::handle object, int depth) noexcept;

  char bytes_[kMostBytes];
  std::size_t size_ = 0;
  bool valid_ = true;
};

/// The plans of the last calls, without weights and arrays; the least recently used goes first.
/// Used with the interpreter locked, which is what makes it safe for threads.
namespace plan_cache {

constexpr std::size_t kMostPlans = 256;

/// The plan of that key, or null.
std::shared_ptr<const ArrayPlan> find(const CallKey& key);
void insert(const CallKey& key, std::shared_ptr<const ArrayPlan> plan);
void clear() noexcept;
std::size_t size() noexcept;

}  // namespace plan_cache
}  // namespace convolith
