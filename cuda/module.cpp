// The module of device ops: `_cuda`, or `_cuda_emulated` where they run on the host.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "array.h"

namespace vectile::cuda {

#define VECTILE_CUDA_FAMILY(name) void bind_##name(nb::module_&);
#include "cuda_families.inc"
#undef VECTILE_CUDA_FAMILY

namespace {

// A new array on a device with the bytes of a host buffer, in its order.
nb::object from_host(nb::bytes data, const std::vector<i64>& shape, const std::string& dtype,
                     int device, std::uintptr_t stream) {
  Shape s;
  if (shape.size() > kMaxDims)
    fail("from_host", "shape", "ndim", text("at most ", kMaxDims), shape.size());
  for (const i64 n : shape) {
    check(n >= 0, "from_host", "shape", "value", "at least 0", n);
    s.push(n);
  }
  int t = 0;
  while (t < static_cast<int>(DType::other) && dtype != dtype_name(static_cast<DType>(t))) ++t;
  if (t == static_cast<int>(DType::other))
    fail<TypeError>("from_host", "dtype", "value", "a boolean, integer or floating-point type",
                    dtype);
  check(device >= 0 && device < device_count(), "from_host", "device", "value",
        text("0 <= device < ", device_count()), device);
  check(data.size() == checked_bytes(s, static_cast<DType>(t)), "from_host", "data", "bytes",
        checked_bytes(s, static_cast<DType>(t)), data.size());
  const Call here(device, reinterpret_cast<Stream>(stream));
  Array y = Array::empty(static_cast<DType>(t), s);
  copy_to_device(y.data, data.c_str(), data.size());
  return to_python(std::move(y));
}

// (bytes in row-major order, shape, name of the dtype); waits for the stream.
nb::tuple to_host(nb::handle x, std::uintptr_t stream) {
  const Input in(x, "to_host", "x");
  const OnDevice here("to_host", stream, in);
  const Array packed = contiguous(*in);
  std::string bytes(static_cast<std::size_t>(packed.elements()) * item_size(packed.dtype), '\0');
  unlocked([&] { copy_to_host(bytes.data(), packed.data, bytes.size()); });
  nb::list shape;
  for (int i = 0; i < packed.ndim(); ++i) shape.append(packed.shape[i]);
  return nb::make_tuple(nb::bytes(bytes.data(), bytes.size()), nb::tuple(shape),
                        dtype_name(packed.dtype));
}

}  // namespace

void register_errors() {
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const ValueError& e) {
      PyErr_SetString(PyExc_ValueError, e.what());
    } catch (const IndexError& e) {
      PyErr_SetString(PyExc_IndexError, e.what());
    } catch (const TypeError& e) {
      PyErr_SetString(PyExc_TypeError, e.what());
    }
  });
}

}  // namespace vectile::cuda

NB_MODULE(VECTILE_CUDA_MODULE, m) {
  using namespace vectile::cuda;
  register_errors();
  m.def("device_count", &device_count);
  m.def("device_name", &device_name, nb::arg("device") = 0);
  m.def("limit_architecture", &limit_architecture, nb::arg("limit"));
  m.def("limit_multiprocessors", &limit_multiprocessors, nb::arg("limit"));
  m.def("from_host", &from_host, nb::arg("data"), nb::arg("shape"), nb::arg("dtype"),
        nb::arg("device") = 0, nb::arg("stream") = 0);
  m.def("to_host", &to_host, nb::arg("x"), nb::arg("stream") = 0);
#define VECTILE_CUDA_FAMILY(name) bind_##name(m);
#include "cuda_families.inc"
#undef VECTILE_CUDA_FAMILY
}
