#include "ops/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "ops/quantize_args.h"
#include "ops/reduce.h"
#include "ops/staging.h"

namespace vectile::ops {
namespace {

// Scale and zero point of every line of the axis, as the kernels read them.
template <class T>
struct Parameters {
  i64 count, inner;  // lines of the axis (1 when per tensor), elements that share one
  Buffer<T> scale, zero;

  Parameters(const char* op, const ScaleLines& lines, const TensorView& given_scales,
             const TensorView* zero_point)
      : count(lines.count), inner(lines.inner) {
    const Array scales = widened(given_scales);
    const bool per_tensor = scales.ndim() == 0;
    scale = Buffer<T>(count), zero = Buffer<T>(count);
    for (i64 i = 0; i < count; ++i) {
      scale[i] = scales.as<T>()[per_tensor ? 0 : i * scales.strides[0]];
      zero[i] = T(0);
    }
    if (!zero_point) return;
    const auto read = [&](auto t) {
      for (i64 i = 0; i < count; ++i)
        zero[i] = static_cast<T>(
            zero_point->as<decltype(t)>()[per_tensor ? 0 : i * zero_point->strides[0]]);
    };
    if (is_float8(zero_point->dtype)) {
      const Array given = contiguous(*zero_point);
      for (i64 i = 0; i < count; ++i)
        check((given.as<std::uint8_t>()[i] & 0x7f) == 0, op, "zero_point", "value",
              text("0 where it is ", zero_point->dtype), "another");
    }
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
constexpr DType dtype_of = sizeof(T) == 4 ? DType::f32 : DType::f64;

// q = x / scale, saturated: unlike a cast, which makes infinity or NaN of what is too large.
template <class T>
void quantize_f8(const T* x, const T* scale, i64 step, i64 n, DType dtype, void* q) {
  const T most = dtype == DType::f8e4m3 ? T(448) : T(57344), least = -most;
  const auto& k = kernels_of<T>();
  const Buffer<T> held(n);
  T* y = held.get();
  k.divide({x, 0, 1}, {scale, 0, step}, y, 1, n);
  k.minimum({y, 0, 1}, {&most, 0, 0}, y, 1, n);
  k.maximum({y, 0, 1}, {&least, 0, 0}, y, 1, n);
  kernels().cast(y, dtype_of<T>, q, dtype, n);
}

// x = q scale
template <class T>
void dequantize_f8(const void* q, DType dtype, const T* scale, i64 step, i64 n, T* x) {
  kernels().cast(q, dtype, x, dtype_of<T>, n);
  kernels_of<T>().multiply({x, 0, 1}, {scale, 0, step}, x, 1, n);
}

template <class T>
Array quantize(const char* op, const ScaleLines& lines, const TensorView& x,
               const TensorView& scale, const TensorView* zero_point) {
  const Array in = contiguous(x);
  const Parameters<T> p(op, lines, scale, zero_point);
  Array y = Array::empty(zero_point ? zero_point->dtype : DType::u8, x.shape);
  const auto& kernel = kernels_of<T>();
  over_lines(p, x.elements(), [&](i64 at, i64 n, const T* s, const T* z, i64 step) {
    const auto run = [&](i64 i, i64 m, const T* from) {
      const T *scales = s + (i - at) * step, *zeros = z + (i - at) * step;
      if (y.dtype == DType::i8)
        kernel.quantize_s8(from, scales, zeros, step, m, y.as<std::int8_t>() + i);
      else if (y.dtype == DType::u8)
        kernel.quantize_u8(from, scales, zeros, step, m, y.as<std::uint8_t>() + i);
      else
        quantize_f8(from, scales, step, m, y.dtype, y.as<std::uint8_t>() + i);
    };
    staged_pieces<T>(at, at + n, run, reading<T>(in, 1));
  });
  return y;
}

}  // namespace

Array quantize_linear(const TensorView& x, const TensorView& scale, const TensorView* zero_point,
                      const i64* axis) {
  constexpr const char* op = "quantize_linear";
  const ScaleLines lines = quantize_linear_args(op, x, scale, zero_point, axis);
  return dispatch_float(
      x.dtype, [&](auto t) { return quantize<decltype(t)>(op, lines, x, scale, zero_point); });
}

Array dequantize_linear(const TensorView& x, const TensorView& scale, const TensorView* zero_point,
                        const i64* axis) {
  constexpr const char* op = "dequantize_linear";
  const ScaleLines lines = dequantize_linear_args(op, x, scale, zero_point, axis);
  return dispatch_float(scale.dtype, [&](auto t) {
    using T = decltype(t);
    const Array in = contiguous(x);
    const Parameters<T> p(op, lines, scale, zero_point);
    Array y = Array::empty(scale.dtype, x.shape);
    const auto& kernel = kernels_of<T>();
    over_lines(p, x.elements(), [&](i64 at, i64 n, const T* s, const T* z, i64 step) {
      const auto run = [&](i64 i, i64 m, T* to) {
        const T *scales = s + (i - at) * step, *zeros = z + (i - at) * step;
        if (x.dtype == DType::i8)
          kernel.dequantize_s8(in.as<std::int8_t>() + i, scales, zeros, step, m, to);
        else if (x.dtype == DType::u8)
          kernel.dequantize_u8(in.as<std::uint8_t>() + i, scales, zeros, step, m, to);
        else if (x.dtype == DType::i32)
          kernel.dequantize_s32(in.as<std::int32_t>() + i, scales, zeros, step, m, to);
        else
          dequantize_f8(in.as<std::uint8_t>() + i, x.dtype, scales, step, m, to);
      };
      staged_pieces<T>(at, at + n, run, writing<T>(y, 1));
    });
    return y;
  });
}

DynamicQuantized dynamic_quantize_linear(const TensorView& x) {
  constexpr const char* op = "dynamic_quantize_linear";
  check_floating(op, "x", x);
  const Array in = contiguous(x);
  return dispatch_float(x.dtype, [&](auto t) -> DynamicQuantized {
    using T = decltype(t);
    const i64 n = x.elements(), chunks = ceil_div(n, kGrain);
    const Buffer<T> low(chunks), high(chunks);
    const auto& kernel = kernels_of<T>();
    parallel_ranges(n, kGrain, [&](i64 begin, i64 end) {
      T *least = &low[begin / kGrain], *most = &high[begin / kGrain];
      const auto run = [&](i64 i, i64 m, const T* from) {
        T ends[2];
        kernel.row_min(from, &ends[0], 1, m);
        kernel.row_max(from, &ends[1], 1, m);
        if (i == begin || ends[0] < *least || std::isnan(ends[0])) *least = ends[0];
        if (i == begin || ends[1] > *most || std::isnan(ends[1])) *most = ends[1];
      };
      staged_pieces<T>(begin, end, run, reading<T>(in, 1));
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
    staged_ranges<T>(
        n, kGrain,
        [&](i64 i, i64 m, const T* from) {
          kernel.quantize_u8(from, &scale, &zero, 0, m, y.as<std::uint8_t>() + i);
        },
        reading<T>(in, 1));
    return {std::move(y), static_cast<double>(scale), static_cast<int>(zero)};
  });
}

}  // namespace vectile::ops
