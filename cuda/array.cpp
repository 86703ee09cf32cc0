#include "array.h"

namespace vectile::cuda {
namespace {

#if defined(VECTILE_CUDA_EMULATED)
constexpr int kDevice = nb::device::cpu::value, kManaged = kDevice;
constexpr const char* kPlace = "host memory: the kernels are emulated";
#else
constexpr int kDevice = nb::device::cuda::value, kManaged = nb::device::cuda_managed::value;
constexpr const char* kPlace = "a CUDA device";
#endif

using Code = nb::dlpack::dtype_code;
struct Known {
  Code code;
  int bits;
  DType dtype;
};
constexpr Known kTypes[] = {
    {Code::Float, 32, DType::f32},
    {Code::Float, 64, DType::f64},
    {Code::Float, 16, DType::f16},
    {Code::Bfloat, 16, DType::bf16},
    {Code::Int, 8, DType::i8},
    {Code::UInt, 8, DType::u8},
    {Code::Int, 16, DType::i16},
    {Code::UInt, 16, DType::u16},
    {Code::Int, 32, DType::i32},
    {Code::UInt, 32, DType::u32},
    {Code::Int, 64, DType::i64},
    {Code::UInt, 64, DType::u64},
    {Code::Bool, 8, DType::boolean},
    {Code::Float8_E4M3FN, 8, DType::f8e4m3},
    {Code::Float8_E5M2, 8, DType::f8e5m2},
};

DType dtype_of(nb::dlpack::dtype t, const char* op, const char* argument) {
  for (const Known& k : kTypes)
    if (t.lanes == 1 && t.code == static_cast<std::uint8_t>(k.code) && t.bits == k.bits)
      return k.dtype;
  fail<TypeError>(op, argument, "dtype", "a boolean, integer or floating-point type",
                  text("code ", int{t.code}, " of ", int{t.bits}, " bits"));
}

nb::dlpack::dtype dtype_to(DType dtype) {
  for (const Known& k : kTypes)
    if (k.dtype == dtype)
      return {static_cast<std::uint8_t>(k.code), static_cast<std::uint8_t>(k.bits), 1};
  throw TypeError("no DLPack dtype");
}

}  // namespace

Input::Input(nb::handle value, const char* op, const char* argument) {
  bool read_only = false;
  if (!nb::try_cast<AnyArray>(value, owner_)) {
    nb::ndarray<nb::ro> constant;
    if (!nb::try_cast<nb::ndarray<nb::ro>>(value, constant))
      fail<TypeError>(op, argument, "type", "an array that exports DLPack",
                      nb::inst_name(value).c_str());
    owner_ = AnyArray(constant.handle());
    read_only = true;
  }
  if (owner_.device_type() != kDevice && owner_.device_type() != kManaged)
    fail<TypeError>(op, argument, "device", kPlace, text("device type ", owner_.device_type()));
  device_ = owner_.device_id();
  if (owner_.ndim() > kMaxDims)
    fail(op, argument, "ndim", text("at most ", kMaxDims), owner_.ndim());
  view_.data = owner_.data();
  view_.dtype = dtype_of(owner_.dtype(), op, argument);
  const std::size_t item = item_size(view_.dtype);
  const std::size_t beyond = reinterpret_cast<std::uintptr_t>(view_.data) % item;
  check(beyond == 0, op, argument, "address", text("a multiple of ", item),
        text("one ", beyond, " beyond"));
  view_.writable = !read_only;
  view_.shape.ndim = static_cast<int>(owner_.ndim());
  for (int i = 0; i < view_.shape.ndim; ++i) {
    view_.shape.dim[i] = static_cast<i64>(owner_.shape(static_cast<std::size_t>(i)));
    view_.strides[i] = owner_.stride(static_cast<std::size_t>(i));
  }
}

InputList::InputList(nb::handle value, const char* op, const char* argument) {
  if (!nb::isinstance<nb::list>(value) && !nb::isinstance<nb::tuple>(value))
    fail<TypeError>(op, argument, "type", "a list or tuple of arrays",
                    nb::inst_name(value).c_str());
  for (const nb::handle x : value) {
    inputs_.emplace_back(x, op, argument);
    views_.push_back(*inputs_.back());
  }
}

void OnDevice::meet(const char* op, int device, const Input& x) {
  check(x.device() == device, op, "arrays", "device", text("all on ", device), x.device());
}

nb::object to_python(Array&& array, nb::handle out) {
  if (!out.is_none()) return nb::borrow(out);
  std::size_t shape[kMaxDims];
  i64 strides[kMaxDims];
  for (int i = 0; i < array.ndim(); ++i) {
    shape[i] = static_cast<std::size_t>(array.shape[i]);
    strides[i] = array.strides[i];
  }
  // The block goes back on the stream of the call that made it.
  auto* owner = new Array(std::move(array));
  const nb::capsule keep(owner, [](void* p) noexcept { delete static_cast<Array*>(p); });
  using Exported = nb::ndarray<nb::array_api>;
  return nb::cast(Exported(owner->data, static_cast<std::size_t>(owner->ndim()), shape, keep,
                           strides, dtype_to(owner->dtype), kDevice, Call::device()));
}

}  // namespace vectile::cuda
