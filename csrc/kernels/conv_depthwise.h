// Convolutions of one input channel with few filters: too little for a matrix product, so that
// vectors of pixels are multiplied by one weight at a time. Images are always copied (the kernels
// read whole vectors at the end of a row).
#pragma once

#include "kernels/conv_image.h"
#include "kernels/epilogue.h"
#include "kernels/microkernel.h"

namespace vectile::VECTILE_TIER {

template <class T>
struct DepthwiseWorkspace {
  i64 plane, sums, total;  // a plane of the output; a vector for each weight
  DepthwiseWorkspace(const ConvImage<T>& image, i64 height, i64 width, i64 m) {
    plane = copy_elements(image, 1, 1) + 2 * Vec<T>::lanes;
    sums = plane + (height * width + 15) / 16 * 16;
    total = sums + m * image.taps * Vec<T>::lanes;
  }
};

template <class T>
static void conv_depthwise_workspace(const ConvImage<T>& image, i64 height, i64 width, i64 m,
                                     i64* elements) {
  *elements = DepthwiseWorkspace<T>(image, height, width, m).total;
}

// N vectors of outputs, the i-th at `to[i]` from pixels at `at[i]`, `lanes[i]` of them.
template <class T, int N>
static void depthwise_vectors(const T* const* at, T* const* to, const int* lanes, const T* weight,
                              const i64* tap, i64 taps, T bias) {
  using V = Vec<T>;
  V acc[N];
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) acc[i] = V(bias);
  for (i64 t = 0; t < taps; ++t) {
    const V w(weight[t]);
    const i64 offset = tap[t];
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) acc[i] = multiply_add(w, V::load(at[i] + offset), acc[i]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i)
    if (lanes[i] == V::lanes)
      acc[i].store(to[i]);
    else
      acc[i].store(to[i], lanes[i]);
}

// out[n] of one group; weight (m, taps), bias (m,) or null.
template <class T>
static void conv_depthwise(const Conv<T>& v, const T* weight, const T* bias, i64 n, T* workspace) {
  constexpr i64 w = Vec<T>::lanes;
  constexpr int most = 8;
  const ConvImage<T>& image = v.image;
  const DepthwiseWorkspace<T> offset(image, v.height, v.width, v.m);
  const ConvView<T> view = view_images(image, n, n + 1, 0, 1, 0, v.height, v.width, workspace);
  const bool dense = v.out_x == 1 && v.out_y == v.width;
  for (i64 m = 0; m < v.m; ++m, weight += image.taps) {
    T* const out = v.out + n * v.out_n + m * v.out_m;
    T* const plane = dense ? out : workspace + offset.plane;
    const T* at[most];
    T* to[most];
    int lanes[most], count = 0;
    const T start = bias ? bias[m] : T(0);
    for (i64 y = 0; y < v.height; ++y)
      for (i64 x = 0; x < v.width; x += w) {
        at[count] = view.at + y * image.y_pitch + x;
        to[count] = plane + y * v.width + x;
        lanes[count] = static_cast<int>(v.width - x < w ? v.width - x : w);
        if (++count < most) continue;
        depthwise_vectors<T, most>(at, to, lanes, weight, image.tap, image.taps, start);
        count = 0;
      }
    for (int i = 0; i < count; ++i)
      depthwise_vectors<T, 1>(at + i, to + i, lanes + i, weight, image.tap, image.taps, start);
    finish_block<T>(plane, v.height * v.width, 1, v.height * v.width, nullptr, v.activation);
    if (!dense)
      for (i64 y = 0; y < v.height; ++y)
        for (i64 x = 0; x < v.width; ++x) out[y * v.out_y + x * v.out_x] = plane[y * v.width + x];
  }
}

// sum[t] += sum over pixels of grad * image for N taps.
template <class T, int N>
static void depthwise_taps(const T* grad, i64 height, i64 width, const T* at, i64 y_pitch,
                           const i64* tap, T* sum) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  V acc[N];
  const T* from[N];
#pragma GCC unroll 16
  for (int t = 0; t < N; ++t) acc[t] = V::load(sum + t * w);
  for (i64 y = 0; y < height; ++y, grad += width) {
#pragma GCC unroll 16
    for (int t = 0; t < N; ++t) from[t] = at + y * y_pitch + tap[t];
    i64 x = 0;
    for (; x + w <= width; x += w) {
      const V g = V::load(grad + x);
#pragma GCC unroll 16
      for (int t = 0; t < N; ++t) acc[t] = multiply_add(g, V::load(from[t] + x), acc[t]);
    }
    if (x < width) {
      const int tail = static_cast<int>(width - x);
      const V g = V::load(grad + x, tail);
#pragma GCC unroll 16
      for (int t = 0; t < N; ++t) acc[t] = multiply_add(g, V::load(from[t] + x, tail), acc[t]);
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < N; ++t) acc[t].store(sum + t * w);
}

// Of one group, over images [0, n): weight (m, taps).
template <class T>
static void conv_depthwise_weight_grad(const ConvWeightGrad<T>& v, i64 n, T* weight, T* workspace) {
  using V = Vec<T>;
  constexpr i64 most = 9, w = V::lanes;
  using Function = void (*)(const T*, i64, i64, const T*, i64, const i64*, T*);
  static constexpr Function function[most] = {
      depthwise_taps<T, 1>, depthwise_taps<T, 2>, depthwise_taps<T, 3>,
      depthwise_taps<T, 4>, depthwise_taps<T, 5>, depthwise_taps<T, 6>,
      depthwise_taps<T, 7>, depthwise_taps<T, 8>, depthwise_taps<T, 9>};
  const ConvImage<T>& image = v.image;
  T* const sums = workspace + DepthwiseWorkspace<T>(image, v.height, v.width, v.m).sums;
  fill(sums, v.m * image.taps * w, T(0));
  for (i64 i = 0; i < n; ++i) {
    const ConvView<T> view = view_images(image, i, i + 1, 0, 1, 0, v.height, v.width, workspace);
    for (i64 m = 0; m < v.m; ++m)
      for (i64 t = 0; t < image.taps; t += most) {
        const i64 count = image.taps - t < most ? image.taps - t : most;
        function[count - 1](v.grad + i * v.grad_n + m * v.grad_m, v.height, v.width, view.at,
                            image.y_pitch, image.tap + t, sums + (m * image.taps + t) * w);
      }
  }
  for (i64 k = 0; k < v.m * image.taps; ++k) weight[k] = reduce_add(V::load(sums + k * w));
}

}  // namespace vectile::VECTILE_TIER
