// DLPack arrays <-> TensorView, without a copy; the only nanobind glue.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <optional>
#include <utility>
#include <vector>

#include "runtime.h"

namespace vectile::cuda {

namespace nb = nanobind;
using AnyArray = nb::ndarray<>;

// One array argument on a GPU: whatever speaks DLPack (CuPy, torch, JAX, what these ops return).
class Input {
 public:
  Input(nb::handle value, const char* op, const char* argument);
  const TensorView& operator*() const { return view_; }
  const TensorView* operator->() const { return &view_; }
  int device() const { return device_; }

 protected:
  TensorView view_;
  AnyArray owner_;
  int device_ = 0;
};

// An argument that may be None.
class OptionalInput {
 public:
  OptionalInput() = default;
  OptionalInput(nb::handle value, const char* op, const char* argument) {
    if (!value.is_none()) input_.emplace(value, op, argument);
  }
  const TensorView* get() const { return input_ ? &**input_ : nullptr; }
  const std::optional<Input>& input() const { return input_; }

 private:
  std::optional<Input> input_;
};

// A list or tuple of arrays.
class InputList {
 public:
  InputList(nb::handle value, const char* op, const char* argument);
  const std::vector<TensorView>& operator*() const { return views_; }
  const std::vector<Input>& inputs() const { return inputs_; }

 private:
  std::vector<Input> inputs_;
  std::vector<TensorView> views_;
};

class OptionalInputList {
 public:
  OptionalInputList(nb::handle value, const char* op, const char* argument) {
    if (!value.is_none()) list_.emplace(value, op, argument);
  }
  const std::vector<TensorView>* get() const { return list_ ? &**list_ : nullptr; }
  const std::optional<InputList>& list() const { return list_; }

 private:
  std::optional<InputList> list_;
};

// Checks that all arrays of a call are on one device, and makes the call there while it lives.
class OnDevice {
 public:
  template <class First, class... In>
  OnDevice([[maybe_unused]] const char* op, std::uintptr_t stream, const First& first,
           const In&... more)
      : call_(device_of(first), reinterpret_cast<Stream>(stream)) {
    meet(op, device_of(first), first);
    (meet(op, device_of(first), more), ...);
  }

 private:
  static int device_of(const Input& x) { return x.device(); }
  static int device_of(const InputList& x) {  // any where there is nothing to do
    return x.inputs().empty() ? 0 : x.inputs()[0].device();
  }
  static void meet(const char* op, int device, const Input& x);
  static void meet(const char* op, int device, const OptionalInput& x) {
    if (x.input()) meet(op, device, *x.input());
  }
  static void meet(const char* op, int device, const InputList& list) {
    for (const Input& x : list.inputs()) meet(op, device, x);
  }
  static void meet(const char* op, int device, const OptionalInputList& x) {
    if (x.list()) meet(op, device, *x.list());
  }
  Call call_;
};

// A new array as an object that exports DLPack; or `out`, where the op was given one.
nb::object to_python(Array&& array, nb::handle out = nb::none());

// Runs f without the GIL; f must touch no Python object.
template <class F>
auto unlocked(F&& f) {
  nb::gil_scoped_release release;
  return f();
}

}  // namespace vectile::cuda
