#include "bindings/plan_cache.hpp"

#include <cstring>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>

namespace py = pybind11;

namespace convolith {

CallKey::CallKey(const CallArrays& arrays, py::handle said, int threads, Numerics numerics) {
  add_array(arrays.first);
  add_array(arrays.second);
  for (const py::handle optional : {arrays.bias, arrays.residual}) {
    optional.is_none() ? add('n', '\0') : add_array(optional);
  }
  add('s', threads);
  add('s', numerics);
  add_object(said, 0);
}

void CallKey::add(const void* data, std::size_t size) noexcept {
  if (size == 0) return;  // of a shape without axes there may be no address
  if (size > kMostBytes - size_) {
    valid_ = false;
    return;
  }
  std::memcpy(bytes_ + size_, data, size);
  size_ += size;
}

template <class Value>
void CallKey::add(char tag, Value value) noexcept {
  add(&tag, 1);
  add(&value, sizeof value);
}

void CallKey::add_array(py::handle object) noexcept {
  const auto dtype = plain_dtype(object);
  if (!dtype) {
    valid_ = false;
    return;
  }
  const auto* array = py::detail::array_proxy(object.ptr());
  add('a', *dtype);
  add('a', array->nd);
  add(array->dimensions, static_cast<std::size_t>(array->nd) * sizeof *array->dimensions);
}

void CallKey::add_object(py::handle object, int depth) noexcept {
  constexpr int kDeepest = 4;  // a call, its window, its padding, an axis
  PyObject* value = object.ptr();
  if (value == Py_None) {
    add('n', '\0');
  } else if (PyLong_CheckExact(value)) {
    int overflow = 0;
    add('i', PyLong_AsLongLongAndOverflow(value, &overflow));
    if (overflow != 0) valid_ = false;
  } else if (PyUnicode_CheckExact(value)) {
    Py_ssize_t length = 0;
    const char* text = PyUnicode_AsUTF8AndSize(value, &length);
    if (text == nullptr) {  // half a surrogate pair
      PyErr_Clear();
      valid_ = false;
      return;
    }
    add('u', length);
    add(text, static_cast<std::size_t>(length));
  } else if (PyBool_Check(value)) {
    add('b', value == Py_True);
  } else if (PyFloat_CheckExact(value)) {
    add('f', PyFloat_AS_DOUBLE(value));
  } else if (PyTuple_CheckExact(value) && depth < kDeepest) {
    const Py_ssize_t count = PyTuple_GET_SIZE(value);
    add('t', count);
    for (Py_ssize_t i = 0; valid_ && i < count; ++i) {
      add_object(PyTuple_GET_ITEM(value, i), depth + 1);
    }
  } else {  // a list too: another thread could change it before the key is made again

    valid_ = false;
  }
}

namespace plan_cache {
namespace {

struct Entry {
  std::string key;
  std::shared_ptr<const ArrayPlan> plan;
};

struct Cache {
  std::list<Entry> entries;  ///< the last used first
  std::unordered_map<std::string_view, std::list<Entry>::iterator> places;
};

Cache& cache() {
  static Cache* const plans = new Cache;  // never destroyed: a thread may outlive static objects
  return *plans;
}

}  // namespace

std::shared_ptr<const ArrayPlan> find(const CallKey& key) {
  if (!key.valid()) return nullptr;
  Cache& plans = cache();
  const auto place = plans.places.find(key.bytes());
  if (place == plans.places.end()) return nullptr;
  plans.entries.splice(plans.entries.begin(), plans.entries, place->second);
  return place->second->plan;
}

void insert(const CallKey& key, std::shared_ptr<const ArrayPlan> plan) {
  if (!key.valid()) return;
  Cache& plans = cache();
  if (const auto place = plans.places.find(key.bytes()); place != plans.places.end()) {
    place->second->plan = std::move(plan);
    return;
  }
  if (plans.entries.size() >= kMostPlans) {
    plans.places.erase(plans.entries.back().key);
    plans.entries.pop_back();
  }
  std::list<Entry> entry;
  entry.push_back({std::string(key.bytes()), std::move(plan)});
  plans.places.emplace(entry.front().key, entry.begin());
  plans.entries.splice(plans.entries.begin(), entry);
}

void clear() noexcept {
  cache().places.clear();
  cache().entries.clear();
}

std::size_t size() noexcept { return cache().entries.size(); }

}  // namespace plan_cache
}  // namespace convolith
