#include "bindings/array.h"

#include <atomic>

namespace vectile {
namespace {

using py::detail::npy_api;

// NumPy's C type numbers (npy_types). int64 is `long` on Linux and `long long` elsewhere.
constexpr std::pair<int, DType> kTypes[] = {
    {npy_api::NPY_BOOL_, DType::boolean},
    {npy_api::NPY_BYTE_, DType::i8},
    {npy_api::NPY_UBYTE_, DType::u8},
    {npy_api::NPY_SHORT_, DType::i16},
    {npy_api::NPY_USHORT_, DType::u16},
    {npy_api::NPY_INT_, DType::i32},
    {npy_api::NPY_UINT_, DType::u32},
    {npy_api::NPY_LONG_, sizeof(long) == 8 ? DType::i64 : DType::i32},
    {npy_api::NPY_ULONG_, sizeof(long) == 8 ? DType::u64 : DType::u32},
    {npy_api::NPY_LONGLONG_, DType::i64},
    {npy_api::NPY_ULONGLONG_, DType::u64},
    {npy_api::NPY_FLOAT_, DType::f32},
    {npy_api::NPY_DOUBLE_, DType::f64},
    {23, DType::f16},  // NPY_HALF
};

// The scalar types of ml_dtypes, whose type numbers NumPy gives out as they are registered.
constexpr DType kExtensionTypes[] = {DType::bf16, DType::f8e4m3, DType::f8e5m2};
constexpr int kExtensions = sizeof(kExtensionTypes) / sizeof(kExtensionTypes[0]);
constexpr int kFirstUserType = 256;  // NPY_USERDEF

// Known by the name of the scalar type: the array exists, so its module is imported. The number is
// remembered.
DType extension_dtype(PyObject* descr, int number) {
  static std::atomic<int> numbers[kExtensions];
  for (int i = 0; i < kExtensions; ++i)
    if (numbers[i].load(std::memory_order_relaxed) == number) return kExtensionTypes[i];
  const py::object type = py::handle(descr).attr("type");
  if (py::str(type.attr("__module__")).cast<std::string>() != "ml_dtypes") return DType::other;
  const auto name = py::str(type.attr("__name__")).cast<std::string>();
  for (int i = 0; i < kExtensions; ++i) {
    if (name != dtype_name(kExtensionTypes[i])) continue;
    numbers[i].store(number, std::memory_order_relaxed);
    return kExtensionTypes[i];
  }
  return DType::other;
}

// The descriptors of kExtensionTypes; ml_dtypes is imported when a result first needs one.
py::dtype extension_descriptor(int i) {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::list> storage;
  const py::list& descriptors =
      storage
          .call_once_and_store_result([] {
            const auto module = py::module_::import("ml_dtypes");
            py::list all;
            for (const DType t : kExtensionTypes)
              all.append(py::dtype::from_args(module.attr(dtype_name(t))));
            return all;
          })
          .get_stored();
  return py::reinterpret_borrow<py::dtype>(descriptors[static_cast<std::size_t>(i)]);
}

py::object numpy_call(const char* function, py::handle value) {
  return py::module_::import("numpy").attr(function)(value);
}

// Fills `view` from an ndarray; false if its memory cannot be described in whole, aligned elements.
bool describe(PyObject* array, TensorView& view, const char* op, const char* argument) {
  const auto* a = py::detail::array_proxy(array);
  if (a->nd > kMaxDims) fail(op, argument, "ndim", text("at most ", kMaxDims), a->nd);
  view.dtype = dtype_from_numpy(a->descr);
  if (view.dtype == DType::other) {
    const auto name = py::str(py::handle(a->descr)).cast<std::string>();
    fail<TypeError>(op, argument, "dtype", "a boolean, integer or floating-point type", name);
  }
  view.data = a->data;
  view.writable = (a->flags & npy_api::NPY_ARRAY_WRITEABLE_) != 0;
  view.shape.ndim = a->nd;
  const auto size = static_cast<i64>(item_size(view.dtype));
  bool whole = reinterpret_cast<std::uintptr_t>(a->data) % size == 0 &&
               py::detail::array_descriptor_proxy(a->descr)->byteorder != '>';
  for (int i = 0; i < a->nd; ++i) {
    view.shape.dim[i] = a->dimensions[i];
    whole = whole && a->strides[i] % size == 0;
    view.strides[i] = a->strides[i] / size;
  }
  return whole;
}

}  // namespace

DType dtype_from_numpy(PyObject* descr) {
  const int number = py::detail::array_descriptor_proxy(descr)->type_num;
  for (const auto& [type_num, dtype] : kTypes)
    if (type_num == number) return dtype;
  return number < kFirstUserType ? DType::other : extension_dtype(descr, number);
}

py::dtype dtype_to_numpy(DType dtype) {
  for (const auto& [type_num, t] : kTypes)
    if (t == dtype) return py::dtype(type_num);
  for (int i = 0; i < kExtensions; ++i)
    if (kExtensionTypes[i] == dtype) return extension_descriptor(i);
  throw TypeError("no NumPy dtype");
}

void expect_host(py::handle value) {
  constexpr const char* name = "__dlpack_device__";
  if (PyObject_HasAttrString(value.ptr(), name) != 1) return;
  constexpr int cuda = 2, cuda_managed = 13;  // DLDeviceType
  const auto type = value.attr(name)().cast<py::tuple>()[0].cast<int>();
  if (type == cuda || type == cuda_managed) throw OnDevice{};
}

py::object call_on_device(const std::string& name, const py::tuple& arguments) {
  return py::module_::import("vectile.device").attr("call")(name, *arguments);
}

TensorView in_place(py::handle value, const char* op, const char* argument) {
  if (!npy_api::get().PyArray_Check_(value.ptr())) {
    expect_host(value);
    fail<TypeError>(op, argument, "type", "numpy.ndarray", Py_TYPE(value.ptr())->tp_name);
  }
  TensorView view;
  check(describe(value.ptr(), view, op, argument), op, argument, "layout",
        "aligned memory in native byte order", "neither");
  return view;
}

Input::Input(py::handle value, const char* op, const char* argument) {
  if (npy_api::get().PyArray_Check_(value.ptr())) {
    owner_ = py::reinterpret_borrow<py::object>(value);
  } else {
    expect_host(value);
    owner_ = numpy_call("asarray", value);
  }
  if (!describe(owner_.ptr(), view_, op, argument)) {
    // `+x` would keep the byte order; astype to the native descriptor packs and swaps.
    owner_ = owner_.attr("astype")(dtype_to_numpy(view_.dtype), py::arg("order") = "C");
    describe(owner_.ptr(), view_, op, argument);
  }
}

OutInput::OutInput(py::handle value, const char* op) {
  if (value.is_none()) return;
  view_ = in_place(value, op, "out");
  given_ = value;
}

py::object OutInput::result(Array&& array) const {
  if (given_) return py::reinterpret_borrow<py::object>(given_);
  return to_numpy(std::move(array));
}

py::object to_numpy(Array&& array) {
  auto& api = npy_api::get();
  Py_intptr_t shape[kMaxDims];
  for (int i = 0; i < array.ndim(); ++i) shape[i] = array.shape[i];
  auto result = py::reinterpret_steal<py::object>(api.PyArray_NewFromDescr_(
      api.PyArray_Type_, dtype_to_numpy(array.dtype).release().ptr(), array.ndim(), shape, nullptr,
      array.data, npy_api::NPY_ARRAY_WRITEABLE_, nullptr));
  if (!result) throw py::error_already_set();
  PyObject* capsule = PyCapsule_New(
      array.data, nullptr, [](PyObject* c) { deallocate(PyCapsule_GetPointer(c, nullptr)); });
  if (!capsule) throw py::error_already_set();
  array.release();
  if (api.PyArray_SetBaseObject_(result.ptr(), capsule) != 0) throw py::error_already_set();
  return result;
}

}  // namespace vectile
