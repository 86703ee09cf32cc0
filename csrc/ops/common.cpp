#include "ops/common.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace vectile {

Array Array::empty(DType dtype, const Shape& shape) {
  Array a;
  a.owner_ = allocate(checked_bytes(shape, dtype));
  a.data = a.owner_;
  a.dtype = dtype;
  a.writable = true;
  a.shape = shape;
  a.set_contiguous_strides();
  return a;
}

Array Array::zeros(DType dtype, const Shape& shape) {
  Array a = empty(dtype, shape);
  std::memset(a.data, 0, static_cast<std::size_t>(a.elements()) * item_size(dtype));
  return a;
}

Array Array::full(DType dtype, const Shape& shape, double value) {
  Array a = empty(dtype, shape);
  if (is_half(dtype)) {
    const auto number = static_cast<float>(value);
    std::uint16_t bits;
    kernels().cast(&number, DType::f32, &bits, dtype, 1);
    std::fill_n(a.as<std::uint16_t>(), a.elements(), bits);
    return a;
  }
  dispatch_float(dtype, [&](auto t) {
    using T = decltype(t);
    std::fill_n(a.as<T>(), a.elements(), static_cast<T>(value));
  });
  return a;
}

namespace {

// Copies n elements with strides; the element is moved as bits.
template <class U>
void copy_line(const U* x, i64 sx, U* y, i64 sy, i64 n) {
  if (sx == 1 && sy == 1) {
    std::memcpy(y, x, static_cast<std::size_t>(n) * sizeof(U));
    return;
  }
  for (i64 i = 0; i < n; ++i) y[i * sy] = x[i * sx];
}

// The innermost two axes in square tiles, so that a transposing copy uses whole cache lines.
template <class U>
void copy_plane(const U* x, i64 sx0, i64 sx1, U* y, i64 sy0, i64 sy1, i64 rows, i64 cols) {
  constexpr i64 tile = 16;
  if (sx1 == 1 || cols < tile || rows < tile) {
    for (i64 i = 0; i < rows; ++i) copy_line(x + i * sx0, sx1, y + i * sy0, sy1, cols);
    return;
  }
  for (i64 i0 = 0; i0 < rows; i0 += tile)
    for (i64 j0 = 0; j0 < cols; j0 += tile)
      for (i64 i = i0; i < std::min(rows, i0 + tile); ++i)
        copy_line(x + i * sx0 + j0 * sx1, sx1, y + i * sy0 + j0 * sy1, sy1,
                  std::min(cols - j0, tile));
}

template <class U>
void copy_typed(const TensorView& x, const TensorView& y) {
  // Merge axes that are adjacent in both layouts; fewer, longer loops.
  Shape s;
  i64 sx[kMaxDims + 2], sy[kMaxDims + 2];
  for (int i = 0; i < x.ndim(); ++i) {
    if (x.shape[i] == 1) continue;
    const int k = s.ndim - 1;
    if (k >= 0 && sx[k] == x.strides[i] * x.shape[i] && sy[k] == y.strides[i] * x.shape[i]) {
      s.dim[k] *= x.shape[i];
      sx[k] = x.strides[i];
      sy[k] = y.strides[i];
    } else {
      sx[s.ndim] = x.strides[i];
      sy[s.ndim] = y.strides[i];
      s.push(x.shape[i]);
    }
  }
  const int outer_dims = std::max(0, s.ndim - 2);
  const i64 cols = s.ndim >= 1 ? s.dim[s.ndim - 1] : 1;
  const i64 rows = s.ndim >= 2 ? s.dim[s.ndim - 2] : 1;
  const i64 sx1 = s.ndim >= 1 ? sx[s.ndim - 1] : 1, sy1 = s.ndim >= 1 ? sy[s.ndim - 1] : 1;
  const i64 sx0 = s.ndim >= 2 ? sx[s.ndim - 2] : 0, sy0 = s.ndim >= 2 ? sy[s.ndim - 2] : 0;
  i64 planes = 1;
  for (int i = 0; i < outer_dims; ++i) planes *= s.dim[i];
  const auto place = [&](i64 plane, const i64* strides) {
    i64 offset = 0;
    for (int i = outer_dims - 1; i >= 0; --i) {
      offset += plane % s.dim[i] * strides[i];
      plane /= s.dim[i];
    }
    return offset;
  };
  // Chunks are whole planes, or bands of rows where there are few planes.
  const i64 band = std::clamp<i64>(kGrain / std::max<i64>(1, cols), 16, std::max<i64>(16, rows));
  const i64 bands = ceil_div(rows, band);
  const i64 per_chunk = std::max<i64>(1, kGrain / std::max<i64>(1, band * cols));
  parallel_ranges(planes * bands, per_chunk, [&](i64 begin, i64 end) {
    for (i64 c = begin; c < end; ++c) {
      const i64 plane = c / bands, row = c % bands * band;
      copy_plane(x.as<U>() + place(plane, sx) + row * sx0, sx0, sx1,
                 y.as<U>() + place(plane, sy) + row * sy0, sy0, sy1, std::min(band, rows - row),
                 cols);
    }
  });
}

}  // namespace

void copy_strided(const TensorView& x, const TensorView& y) {
  if (x.elements() == 0) return;
  switch (item_size(x.dtype)) {
    case 1:
      return copy_typed<std::uint8_t>(x, y);
    case 2:
      return copy_typed<std::uint16_t>(x, y);
    case 4:
      return copy_typed<std::uint32_t>(x, y);
    default:
      return copy_typed<std::uint64_t>(x, y);
  }
}

Array contiguous(const TensorView& x) {
  if (x.contiguous()) return Array(x);
  Array packed = Array::empty(x.dtype, x.shape);
  copy_strided(x, packed);
  return packed;
}

Array rows_contiguous(const TensorView& x) {
  return x.shape.back() <= 1 || x.stride(-1) == 1 ? Array(x) : contiguous(x);
}

bool beyond_caches(const TensorView& y) {
  // From Linux's sysfs: sysconf adds up the caches of all sockets, or worse in a virtual machine. A
  // cache of more than 64 MB is shared by many cores.
  static const i64 last = [] {
    long long kib = 0;
    if (std::FILE* f = std::fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r")) {
      if (std::fscanf(f, "%lldK", &kib) != 1) kib = 0;
      std::fclose(f);
    }
    return std::clamp<i64>(kib << 10, 16 << 20, 64 << 20);
  }();
  return y.elements() >= last / static_cast<i64>(item_size(y.dtype));
}

Output::Output(const char* op, DType dtype, const Shape& shape, const TensorView* out,
               std::initializer_list<const TensorView*> inputs) {
  if (!out) {
    array_ = Array::empty(dtype, shape);
    return;
  }
  check_out(op, *out, dtype, shape);
  bool direct = out->contiguous();
  for (const TensorView* in : inputs) {
    const bool elementwise = in && in->data == out->data && in->dtype == out->dtype &&
                             in->shape == out->shape && in->contiguous();
    overwrites_ = overwrites_ || elementwise;
    direct = direct && (!in || elementwise || !overlaps(*in, *out));
  }
  out_ = out;
  array_ = direct ? Array(*out) : Array::empty(dtype, shape);
}

Array Output::finish() {
  if (out_ && array_.data != out_->data) {
    copy_strided(array_, *out_);
    return Array(*out_);
  }
  return std::move(array_);
}

}  // namespace vectile
