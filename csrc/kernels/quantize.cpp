// quantize: linear quantisation as ONNX defines it (QuantizeLinear, DequantizeLinear).
#include <cstdint>

#include "base/types.h"
#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

// f(j, count, scale, zero) for every vector of n values.
template <class T, class F>
VECTILE_INLINE void each_vector(const T* scale, const T* zero, i64 step, i64 n, F f) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  const V scale0(*scale), zero0(*zero);
  for (i64 j = 0; j < n; j += w) {
    const int m = static_cast<int>(n - j < w ? n - j : w);
    if (step == 0)
      f(j, m, scale0, zero0);
    else
      f(j, m, V::load(scale + j, m), V::load(zero + j, m));
  }
}

template <class T, class Byte>
static void quantize(const T* x, const T* scale, const T* zero, i64 step, i64 n, Byte* q) {
  using V = Vec<T>;
  each_vector(scale, zero, step, n, [=](i64 j, int m, V s, V z) VECTILE_LAMBDA {
    (round(V::load(x + j, m) / s) + z).store(q + j, m);
  });
}

template <class T, class Integer>
static void dequantize(const Integer* q, const T* scale, const T* zero, i64 step, i64 n, T* x) {
  using V = Vec<T>;
  each_vector(scale, zero, step, n, [=](i64 j, int m, V s, V z) VECTILE_LAMBDA {
    ((V::load(q + j, m) - z) * s).store(x + j, m);
  });
}

template <class T>
static void quantize_u8(const T* x, const T* scale, const T* zero, i64 step, i64 n,
                        std::uint8_t* q) {
  quantize(x, scale, zero, step, n, q);
}
template <class T>
static void quantize_s8(const T* x, const T* scale, const T* zero, i64 step, i64 n,
                        std::int8_t* q) {
  quantize(x, scale, zero, step, n, q);
}
template <class T>
static void dequantize_u8(const std::uint8_t* q, const T* scale, const T* zero, i64 step, i64 n,
                          T* x) {
  dequantize(q, scale, zero, step, n, x);
}
template <class T>
static void dequantize_s8(const std::int8_t* q, const T* scale, const T* zero, i64 step, i64 n,
                          T* x) {
  dequantize(q, scale, zero, step, n, x);
}
template <class T>
static void dequantize_s32(const std::int32_t* q, const T* scale, const T* zero, i64 step, i64 n,
                           T* x) {
  dequantize(q, scale, zero, step, n, x);
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
