// Input gradient by scattering: with few channels, W^T G is a product of few rows, (channel, tap)
// by pixel, whose rows are added to a padded image where their taps read. Every pixel is added to
// in the order of blocks, then taps. Images too narrow to fill a vector are taken one to a lane:
// pixels of grad, product and copy are then vectors of as many images.
#pragma once

#include "kernels/conv_image.h"
#include "kernels/epilogue.h"
#include "kernels/microkernel.h"
#include "kernels/packing.h"
#include "simd/transpose.h"

namespace vectile::VECTILE_TIER {

template <class T>
struct ScatterWorkspace {  // offsets in elements
  i64 rows, width, grad, product, strip, column, total;
  explicit ScatterWorkspace(const ConvScatter<T>& v) {
    using V = Vec<T>;
    const auto line = [](i64 x) { return (x + 15) / 16 * 16; };
    const i64 row = v.images * v.width, most = v.images > 1 ? 128 : 512;
    rows = most / row < 1 ? 1 : most / row < v.height ? most / row : v.height;
    width = line(rows * row);  // pixels of a block, by whole rows
    grad = copy_elements(v.image, v.images, v.image.channels);
    product = grad + (v.images > 1 ? v.m * width : 0);
    strip = product + v.image.channels * v.image.taps * width;
    column = strip + line(v.kc * Tile<V>::nr);
    total = column + line(v.image.columns.size * static_cast<i64>(sizeof(i64) / sizeof(T)));
  }
};

template <class T>
static void conv_scatter_workspace(const ConvScatter<T>& v, i64* elements) {
  *elements = ScatterWorkspace<T>(v).total;
}

// product (rows of (channel, tap)) = W^T G for `pixels` pixels from `grad` on.
template <class T>
static void scatter_product(const ConvScatter<T>& v, const T* grad, i64 grad_m, i64 pixels,
                            T* product, i64 width, T* strip) {
  using V = Vec<T>;
  constexpr int mr = Tile<V>::mr, nr = Tile<V>::nr;
  const Panels panels(v.image.channels * v.image.taps, mr);
  for (i64 k0 = 0; k0 < v.m; k0 += v.kc) {
    const i64 kc = v.m - k0 < v.kc ? v.m - k0 : v.kc;
    const T* weight = v.weight + k0 / v.kc * panels.count * v.panel;
    for (i64 j = 0; j < pixels; j += nr) {
      const int columns = static_cast<int>(pixels - j < nr ? pixels - j : nr);
      const int tail = columns % V::lanes;
      const T* b = grad + k0 * grad_m + j;
      const bool copy = panels.count > 1 || tail > 0;
      if (copy) pack_panel<V, nr>(b, 1, grad_m, columns, kc, strip);
      for (i64 p = 0; p < panels.count; ++p)
        tile_function<V>(panels.rows(p), columns)(
            kc, weight + p * v.panel, 1, mr, copy ? strip : b, copy ? nr : grad_m,
            product + panels.start(p) * width + j, width, tail, k0 > 0, {});
    }
  }
}

// to[i] += from[i]
template <class T>
static void add_run(const T* from, i64 count, T* to) {
  using V = Vec<T>;
  i64 i = 0;
  for (; i + V::lanes <= count; i += V::lanes) (V::load(to + i) + V::load(from + i)).store(to + i);
  if (i < count) {
    const int tail = static_cast<int>(count - i);
    (V::load(to + i, tail) + V::load(from + i, tail)).store(to + i, tail);
  }
}

// Lanes [begin, end) of v, for any two numbers, to `to` + their number.
template <class T>
static void store_between(Vec<T> v, T* to, i64 begin, i64 end) {
  constexpr i64 w = Vec<T>::lanes;
  if (begin <= 0) {
    if (end > 0) v.store(to, static_cast<int>(end < w ? end : w));
    return;
  }
  T lanes[w];
  v.store(lanes);
  for (i64 i = begin; i < w && i < end; ++i) to[i] = lanes[i];
}

// The image's channel back to dense rows, plus bias: what copy_row and view_images do, reversed.
template <class T>
static void copy_back(const ConvImage<T>& image, const T* copy, i64 width, T bias, T* out) {
  using V = Vec<T>;
  const ConvAxis &rows = image.rows, &columns = image.columns;
  const i64 length = width + columns.reach;
  // Elements outside the reach of every tap.
  fill(out, rows.size * columns.size, bias);
  for (i64 p = 0; p < rows.phases; ++p)
    for (i64 i = 0; i < image.block_rows + rows.reach; ++i, copy += image.y_pitch) {
      const i64 h = rows.origin + rows.phase[p] + i * rows.step;
      if (h < 0 || h >= rows.size) continue;
      T* const row = out + h * columns.size;
      if (columns.step == 2 && columns.phases == 2) {
        const i64 low = -columns.origin, high = columns.size - columns.origin;
        for (i64 x = 0; x < length; x += V::lanes) {
          const int count = static_cast<int>(length - x < V::lanes ? length - x : V::lanes);
          V a, b;
          interleave(V::load(copy + x, count), V::load(copy + length + x, count), a, b);
          store_between(a + V(bias), row + columns.origin + 2 * x, low - 2 * x, high - 2 * x);
          store_between(b + V(bias), row + columns.origin + 2 * x + V::lanes,
                        low - 2 * x - V::lanes, high - 2 * x - V::lanes);
        }
        continue;
      }
      for (i64 q = 0; q < columns.phases; ++q) {
        const T* from = copy + q * length;
        const i64 first = columns.origin + columns.phase[q];
        i64 x = 0, at = first;
        for (; x < length && at < 0; ++x) at += columns.step;
        if (columns.step == 1)
          for (; x + V::lanes <= length && at + V::lanes <= columns.size;
               x += V::lanes, at += V::lanes)
            (V::load(from + x) + V(bias)).store(row + at);
        for (; x < length && at < columns.size; ++x, at += columns.step) row[at] = from[x] + bias;
      }
    }
}

// grad of rows [y0, y0 + height) of images [n0, n1) as to[m, pixel, image], zeros for images
// beyond.
template <class T>
static void interleave_images(const ConvScatter<T>& v, i64 n0, i64 n1, i64 y0, i64 height, T* to,
                              i64 to_m) {
  constexpr int w = Vec<T>::lanes;
  const i64 pixels = height * v.width;
  for (i64 m = 0; m < v.m; ++m, to += to_m)
    for (i64 i = 0; i < pixels; i += w)
      transpose_block(v.grad + n0 * v.grad_n + m * v.grad_m + y0 * v.width + i, v.grad_n,
                      static_cast<int>(n1 - n0), static_cast<int>(pixels - i < w ? pixels - i : w),
                      to + i * w, w, w);
}

// Where columns of the image lie in a row of its copy, or -1 beyond the reach of every tap.
static void place_columns(const ConvAxis& columns, i64 length, i64* place) {
  for (i64 x = 0; x < columns.size; ++x) place[x] = -1;
  for (i64 p = 0; p < columns.phases; ++p)
    for (i64 i = 0; i < length; ++i) {
      const i64 x = columns.origin + columns.phase[p] + i * columns.step;
      if (x >= 0 && x < columns.size) place[x] = p * length + i;
    }
}

// copy_back of a channel of `images` interleaved images, out_n apart.
template <class T>
static void copy_back_images(const ConvImage<T>& image, const T* copy, const i64* place, T bias,
                             int images, T* out, i64 out_n) {
  using V = Vec<T>;
  constexpr int w = V::lanes;
  const ConvAxis& rows = image.rows;
  const i64 size = image.columns.size;
  for (int n = 0; n < images; ++n) fill(out + n * out_n, rows.size * size, bias);
  for (i64 p = 0; p < rows.phases; ++p)
    for (i64 i = 0; i < image.block_rows + rows.reach; ++i, copy += image.y_pitch * w) {
      const i64 h = rows.origin + rows.phase[p] + i * rows.step;
      if (h < 0 || h >= rows.size) continue;
      for (i64 x = 0; x < size; x += w) {
        const int count = static_cast<int>(size - x < w ? size - x : w);
        T block[w * w];
        for (int k = 0; k < count; ++k) {
          const i64 at = place[x + k];
          (at < 0 ? V(bias) : V::load(copy + at * w) + V(bias)).store(block + k * w);
        }
        transpose_block(block, w, count, images, out + h * size + x, out_n, count);
      }
    }
}

template <class T>
static void conv_scatter(const ConvScatter<T>& v, i64 n0, i64 n1, T* workspace) {
  const ScatterWorkspace<T> at(v);
  const ConvImage<T>& image = v.image;
  T* const product = workspace + at.product;
  const i64 length = v.width + image.columns.reach, c_pitch = v.images * image.c_pitch;
  fill(workspace, image.channels * c_pitch, T(0));
  for (i64 y0 = 0; y0 < v.height; y0 += at.rows) {
    const i64 height = v.height - y0 < at.rows ? v.height - y0 : at.rows;
    const T* grad = v.grad + n0 * v.grad_n + y0 * v.width;
    i64 grad_m = v.grad_m;
    if (v.images > 1) {
      interleave_images(v, n0, n1, y0, height, workspace + at.grad, at.width);
      grad = workspace + at.grad, grad_m = at.width;
    }
    const i64 row = v.images * v.width;
    scatter_product(v, grad, grad_m, height * row, product, at.width, workspace + at.strip);
    for (i64 t = 0; t < image.taps; ++t)
      for (i64 c = 0; c < image.channels; ++c) {
        const T* from = product + (c * image.taps + t) * at.width;
        T* to = workspace + c * c_pitch + (image.tap[t] + y0 * image.y_pitch) * v.images;
        for (i64 y = 0; y < height; ++y, from += row, to += image.y_pitch * v.images)
          add_run(from, row, to);
      }
  }
  i64* const place = reinterpret_cast<i64*>(workspace + at.column);
  if (v.images > 1) place_columns(image.columns, length, place);
  const i64 size = image.rows.size * image.columns.size;
  for (i64 c = 0; c < image.channels; ++c) {
    T* const out = v.out + n0 * v.out_n + c * size;
    const T bias = v.bias ? v.bias[c] : T(0);
    if (v.images > 1)
      copy_back_images(image, workspace + c * c_pitch, place, bias, static_cast<int>(n1 - n0), out,
                       v.out_n);
    else
      copy_back(image, workspace + c * c_pitch, v.width, bias, out);
    for (i64 n = 0; n < n1 - n0; ++n)
      finish_block<T>(out + n * v.out_n, size, 1, size, nullptr, v.activation);
  }
}

}  // namespace vectile::VECTILE_TIER
