#include "ops/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "ops/reduce.h"

namespace vectile::ops {
namespace {

// Scale and zero point of every line of the axis, as the kernels read them.
template <class T>
struct Parameters {
  i64 count, inner;  // lines of the axis (1 when per tensor), elements that share one
  Buffer<T> scale, zero;

  Parameters(const char* op, const TensorView& x, const TensorView& scales,
             const TensorView* zero_point, const i64* axis) {
    const bool per_tensor = scales.ndim() == 0;
    count = inner = 1;
    if (per_tensor) {
      inner = x.elements();
    } else {
      check(axis != nullptr, op, "axis", "value", "an axis for a 1-D scale", "None");
      const int a = check_axis(op, *axis, x.ndim());
      check_shape(op, "scale", scales, Shape(x.shape[a]));
      count = x.shape[a];
      for (int i = a + 1; i < x.ndim(); ++i) inner *= x.shape[i];
    }
    scale = Buffer<T>(count), zero = Buffer<T>(count);
    for (i64 i = 0; i < count; ++i) {
      scale[i] = scales.as<T>()[per_tensor ? 0 : i * scales.strides[0]];
      zero[i] = T(0);
    }
    if (!zero_point) return;
    check_shape(op, "zero_point", *zero_point, scales.shape);
    const auto read = [&](auto t) {
      for (i64 i = 0; i < count; ++i)
        zero[i] = static_cast<T>(
            zero_point->as<decltype(t)>()[per_tensor ? 0 : i * zero_point->strides[0]]);
    };
    if (zero_point->dtype == DType::i8) read(std::int8_t{});
    if (zero_point->dtype == DType::u8) read(std::uint8_t{});
    if (zero_point->dtype == DType::i32) read(std::int32_t{});
  }
};

// run(offset, n, scale, zero, step) over the elements of a row-major array, in chunks.
template <class T, class F>
void over_lines(const Parameters<T>& p, i64 elements, F&& run) {
  if (elements == 0) return;
  if (p.inner == 1) {  // parameters vary along the contiguous axis
    const i64 n = p.count;
    parallel_ranges(elements / n, rows_grain(n), [&](i64 begin, i64 end) {
      for (i64 r = begin; r < end; ++r) run(r * n, n, p.scale.get(), p.zero.get(), i64{1});
    });
    return;
  }
  const i64 pieces = ceil_div(p.inner, kGrain);  // of one line
  const i64 lines = elements / p.inner;
  parallel_ranges(lines * pieces, rows_grain(p.inner), [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) {
      const i64 line = i / pieces, from = i % pieces * kGrain, c = line % p.count;
      run(line * p.inner + from, std::min(p.inner - from, kGrain), &p.scale[c], &p.zero[c], i64{0});
    }
  });
}

template <class T>
Array quantize(const char* op, const TensorView& x, const TensorView& scale,
               const TensorView* zero_point, const i64* axis) {
  const Array in = contiguous(x);
  const Parameters<T> p(op, x, scale, zero_point, axis);
  Array y = Array::empty(zero_point ? zero_point->dtype : DType::u8, x.shape);
  const auto& kernel = kernels_of<T>();
  over_lines(p, x.elements(), [&](i64 at, i64 n, const T* s, const T* z, i64 step) {
    if (y.dtype == DType::i8)
      kernel.quantize_s8(in.as<T>() + at, s, z, step, n, y.as<std::int8_t>() + at);
    else
      kernel.quantize_u8(in.as<T>() + at, s, z, step, n, y.as<std::uint8_t>() + at);
  });
  return y;
}

void check_zero_point(const char* op, const TensorView* zero_point) {
  if (zero_point)
    check<TypeError>(zero_point->dtype == DType::i8 || zero_point->dtype == DType::u8, op,
                     "zero_point", "dtype", "int8 or uint8", zero_point->dtype);
}

}  // namespace

Array quantize_linear(const TensorView& x, const TensorView& scale, const TensorView* zero_point,
                      const i64* axis) {
  constexpr const char* op = "quantize_linear";
  check_float(op, "x", x);
  check_same_dtype(op, "scale", scale, x);
  check_zero_point(op, zero_point);
  return dispatch_float(
      x.dtype, [&](auto t) { return quantize<decltype(t)>(op, x, scale, zero_point, axis); });
}

Array dequantize_linear(const TensorView& x, const TensorView& scale, const TensorView* zero_point,
                        const i64* axis) {
  constexpr const char* op = "dequantize_linear";
  check<TypeError>(x.dtype == DType::i8 || x.dtype == DType::u8 || x.dtype == DType::i32, op, "x",
                   "dtype", "int8, uint8 or int32", x.dtype);
  check_float(op, "scale", scale);
  if (zero_point) check_same_dtype(op, "zero_point", *zero_point, x);
  return dispatch_float(scale.dtype, [&](auto t) {
    using T = decltype(t);
    const Array in = contiguous(x);
    const Parameters<T> p(op, x, scale, zero_point, axis);
    Array y = Array::empty(scale.dtype, x.shape);
    const auto& kernel = kernels_of<T>();
    over_lines(p, x.elements(), [&](i64 at, i64 n, const T* s, const T* z, i64 step) {
      T* to = y.as<T>() + at;
      if (x.dtype == DType::i8)
        kernel.dequantize_s8(in.as<std::int8_t>() + at, s, z, step, n, to);
      else if (x.dtype == DType::u8)
        kernel.dequantize_u8(in.as<std::uint8_t>() + at, s, z, step, n, to);
      else
        kernel.dequantize_s32(in.as<std::int32_t>() + at, s, z, step, n, to);
    });
    return y;
  });
}

DynamicQuantized dynamic_quantize_linear(const TensorView& x) {
  constexpr const char* op = "dynamic_quantize_linear";
  check_float(op, "x", x);
  const Array in = contiguous(x);
  return dispatch_float(x.dtype, [&](auto t) -> DynamicQuantized {
    using T = decltype(t);
    const i64 n = x.elements(), chunks = ceil_div(n, kGrain);
    const Buffer<T> low(chunks), high(chunks);
    const auto& kernel = kernels_of<T>();
    parallel_ranges(n, kGrain, [&](i64 begin, i64 end) {
      kernel.row_min(in.as<T>() + begin, &low[begin / kGrain], 1, end - begin);
      kernel.row_max(in.as<T>() + begin, &high[begin / kGrain], 1, end - begin);
    });
    T least = 0, most = 0;  // the range always holds zero
    for (i64 i = 0; i < chunks; ++i) {
      check(std::isfinite(low[i]) && std::isfinite(high[i]), op, "x", "values", "finite numbers",
            std::isnan(low[i]) ? "nan" : "inf");
      least = std::min(least, low[i]), most = std::max(most, high[i]);
    }
    T scale = most / 255 - least / 255;
    if (!(scale > 0)) scale = 1;
    const T zero = std::clamp(std::nearbyint(-least / scale), T(0), T(255));
    Array y = Array::empty(DType::u8, x.shape);
    parallel_ranges(n, kGrain, [&](i64 begin, i64 end) {
      kernel.quantize_u8(in.as<T>() + begin, &scale, &zero, 0, end - begin,
                         y.as<std::uint8_t>() + begin);
    });
    return {std::move(y), static_cast<double>(scale), static_cast<int>(zero)};
  });
}

}  // namespace vectile::ops
