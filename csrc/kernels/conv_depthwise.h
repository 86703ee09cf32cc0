// Convolutions of one input channel with few filters: too little for a matrix product, so that
// vectors of pixels are multiplied by one weight at a time. The image is read where it lies where
// taps leave it in the first and the last vector of a row only, under masks; else it is a copy.
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

// Whether a row of taps reads inside the image for output row y.
template <class T>
static bool has_row(const ConvImage<T>& image, i64 y, i64 tap_row) {
  const ConvAxis& rows = image.rows;
  const i64 h = rows.origin + y * rows.step + rows.d[tap_row];
  return image.copied || (h >= 0 && h < rows.size);
}

// The lanes of the vector of outputs at x for which a column of taps reads inside the image.
template <class T>
static typename Vec<T>::Mask lanes_inside(const ConvImage<T>& image, i64 x, i64 tap_column) {
  const i64 at = image.columns.origin + x + image.columns.d[tap_column];
  return image.copied ? first_mask<T>(Vec<T>::lanes)
                      : lanes_between<T>(-at, image.columns.size - at);
}

// Rows of taps in the order of the image: `row(i)` is the i-th; none where they are empty, as for
// pixels that a stride leaves out. `adjoin`: they lie as far apart as rows of outputs, so that a
// vector of the image serves them all.
template <class T>
struct TapRows {
  i64 count;
  bool adjoin, reversed;
  explicit TapRows(const ConvImage<T>& image)
      : count(image.taps > 0 ? image.rows.taps : 0), adjoin(true) {
    reversed = count > 1 && image.tap[image.columns.taps] < image.tap[0];
    for (i64 i = 1; i < count; ++i)
      adjoin = adjoin && image.tap[row(i) * image.columns.taps] -
                                 image.tap[row(i - 1) * image.columns.taps] ==
                             image.y_pitch;
  }
  i64 row(i64 i) const { return reversed ? count - 1 - i : i; }
};

// C vectors of outputs from x on, the last of `tail` lanes, in all rows of a plane, R at a time.
// H rows of taps share vectors of the image; they adjoin unless H is 1.
template <class T, int H, int R, int C>
static void depthwise_strip(const ConvImage<T>& image, const TapRows<T>& tap_rows, const T* plane,
                            i64 height, i64 width, i64 x, int tail, const T* weight, T bias,
                            T* out) {
  using V = Vec<T>;
  const i64 columns = image.columns.taps, pitch = image.y_pitch;
  typename V::Mask edge[kMaxTapColumns][2];  // of the first and the last vector
  for (i64 j = 0; j < columns && !image.copied; ++j) {
    edge[j][0] = lanes_inside(image, x, j);
    edge[j][1] = lanes_inside(image, x + (C - 1) * V::lanes, j);
  }
  for (i64 step = 0; step < height; step += R) {
    // The last block ends with the plane: rows that it shares with the one before come out equal.
    const i64 y = step + R > height ? height - R : step;
    V acc[R][C];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int c = 0; c < C; ++c) acc[r][c] = V(bias);
    for (i64 i = 0; i < tap_rows.count; i += H) {
      const T* w_row[H];
#pragma GCC unroll 16
      for (int h = 0; h < H; ++h) w_row[h] = weight + tap_rows.row(i + h) * columns;
      const i64 top = tap_rows.row(i);
      const T* const first = plane + y * pitch + x;
      const i64* const tap = image.tap + top * columns;
      unsigned inside = 0;
#pragma GCC unroll 16
      for (int q = 0; q < R + H - 1; ++q) inside |= unsigned(has_row(image, y + q, top)) << q;
      const auto add = [&](const auto& load) VECTILE_LAMBDA {
        for (i64 j = 0; j < columns; ++j) {
          V w[H];
#pragma GCC unroll 16
          for (int h = 0; h < H; ++h) w[h] = V(w_row[h][j]);
          const T* from = first + tap[j];
#pragma GCC unroll 16
          for (int q = 0; q < R + H - 1; ++q, from += pitch) {
            if (!(inside >> q & 1)) continue;
#pragma GCC unroll 16
            for (int c = 0; c < C; ++c) {
              const V v = load(from + c * V::lanes, j, c);
#pragma GCC unroll 16
              for (int h = 0; h < H; ++h)
                if (q - h >= 0 && q - h < R) acc[q - h][c] = multiply_add(w[h], v, acc[q - h][c]);
            }
          }
        }
      };
      if (image.copied)
        add([](const T* p, i64, int) VECTILE_LAMBDA { return V::load(p); });
      else
        add([&](const T* p, i64 j, int c) VECTILE_LAMBDA {
          return c == 0 ? V::load(p, edge[j][0]) : c == C - 1 ? V::load(p, edge[j][1]) : V::load(p);
        });
    }
    T* to = out + y * width + x;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r, to += width) {
#pragma GCC unroll 16
      for (int c = 0; c < C - 1; ++c) acc[r][c].store(to + c * V::lanes);
      acc[r][C - 1].store(to + (C - 1) * V::lanes, tail);
    }
  }
}

// depthwise_strip by vectors in a row, for as many rows as give 8 to 12 sums, and for one.
template <class T>
struct DepthwiseTable {
  static constexpr int most = 4;
  using Function = void (*)(const ConvImage<T>&, const TapRows<T>&, const T*, i64, i64, i64, int,
                            const T*, T, T*);
  struct Entry {
    int rows;
    Function several, one;
  };
  template <int H>
  static constexpr Entry of[most] = {{8, depthwise_strip<T, H, 8, 1>, depthwise_strip<T, H, 1, 1>},
                                     {6, depthwise_strip<T, H, 6, 2>, depthwise_strip<T, H, 1, 2>},
                                     {4, depthwise_strip<T, H, 4, 3>, depthwise_strip<T, H, 1, 3>},
                                     {3, depthwise_strip<T, H, 3, 4>, depthwise_strip<T, H, 1, 4>}};
};

// One plane of the output, (height, width) dense.
template <class T>
static void depthwise_plane(const ConvImage<T>& image, const T* plane, i64 height, i64 width,
                            const T* weight, T bias, T* out) {
  using Table = DepthwiseTable<T>;
  constexpr i64 w = Vec<T>::lanes, block = Table::most * w;
  const TapRows<T> rows(image);
  const bool three = rows.adjoin && rows.count == 3;
  const auto* const table = three ? Table::template of<3> : Table::template of<1>;
  for (i64 x = 0; x < width; x += block) {
    const i64 columns = width - x < block ? width - x : block, vectors = (columns + w - 1) / w;
    const auto& entry = table[vectors - 1];
    (height < entry.rows ? entry.one : entry.several)(image, rows, plane, height, width, x,
                                                      static_cast<int>(columns - (vectors - 1) * w),
                                                      weight, bias, out);
  }
}

// out[n] of one group; weight (m, taps), bias (m,) or null.
template <class T>
static void conv_depthwise(const Conv<T>& v, const T* weight, const T* bias, i64 n, T* workspace) {
  const ConvImage<T>& image = v.image;
  const DepthwiseWorkspace<T> offset(image, v.height, v.width, v.m);
  const ConvView<T> view = view_images(image, n, n + 1, 0, 1, 0, v.height, v.width, workspace);
  const bool dense = v.out_x == 1 && v.out_y == v.width;
  for (i64 m = 0; m < v.m; ++m, weight += image.taps) {
    T* const out = v.out + n * v.out_n + m * v.out_m;
    T* const plane = dense ? out : workspace + offset.plane;
    depthwise_plane(image, view.at, v.height, v.width, weight, bias ? bias[m] : T(0), plane);
    finish_block<T>(plane, v.height * v.width, 1, v.height * v.width, nullptr, v.activation);
    if (!dense)
      for (i64 y = 0; y < v.height; ++y)
        for (i64 x = 0; x < v.width; ++x) out[y * v.out_y + x * v.out_x] = plane[y * v.width + x];
  }
}

// sum[h, c] += sum over pixels of rows [y0, y1) of grad * image for taps (i + h, j + c), where all
// of these rows of taps read inside the image.
template <class T, int H, int C>
static void depthwise_taps(const ConvImage<T>& image, const T* plane, const T* grad, i64 y0, i64 y1,
                           i64 width, i64 i, i64 j, T* sum) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  const i64 columns = image.columns.taps, whole = (width - 1) / w * w;
  const int tail = static_cast<int>(width - whole);
  const i64* const tap = image.tap + i * columns + j;
  typename V::Mask first[C], last[C];
  i64 d[C];
  V acc[H][C];
#pragma GCC unroll 16
  for (int c = 0; c < C; ++c) {
    first[c] = lanes_inside(image, 0, j + c);
    last[c] = lanes_inside(image, whole, j + c) & first_mask<T>(tail);
    d[c] = tap[c] - tap[0];
#pragma GCC unroll 16
    for (int h = 0; h < H; ++h) acc[h][c] = V::load(sum + (h * columns + c) * w);
  }
  for (i64 y = y0; y < y1; ++y) {
    const T* const g = grad + y * width;
    const T* at[H];
#pragma GCC unroll 16
    for (int h = 0; h < H; ++h) at[h] = plane + y * image.y_pitch + tap[h * columns];
    const auto add = [&](i64 x, V gv, auto load) VECTILE_LAMBDA {
#pragma GCC unroll 16
      for (int h = 0; h < H; ++h)
#pragma GCC unroll 16
        for (int c = 0; c < C; ++c)
          acc[h][c] = multiply_add(gv, load(at[h] + x + d[c], c), acc[h][c]);
    };
    if (whole > 0)
      add(0, V::load(g), [&](const T* p, int c) VECTILE_LAMBDA { return V::load(p, first[c]); });
    for (i64 x = w; x < whole; x += w)
      add(x, V::load(g + x), [](const T* p, int) VECTILE_LAMBDA { return V::load(p); });
    add(whole, V::load(g + whole, tail),
        [&](const T* p, int c) VECTILE_LAMBDA { return V::load(p, last[c]); });
  }
#pragma GCC unroll 16
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) acc[h][c].store(sum + (h * columns + c) * w);
}

// sum[t] += sum over pixels of grad * image for the taps of H rows from row i on.
template <class T, int H>
static void depthwise_tap_rows(const ConvImage<T>& image, const T* plane, const T* grad, i64 y0,
                               i64 y1, i64 width, i64 i, T* sum) {
  if (y0 >= y1) return;
  const i64 columns = image.columns.taps;
  for (i64 j = 0; j < columns;) {
    const auto taps = columns - j >= 3   ? depthwise_taps<T, H, 3>
                      : columns - j == 2 ? depthwise_taps<T, H, 2>
                                         : depthwise_taps<T, H, 1>;
    taps(image, plane, grad, y0, y1, width, i, j, sum + (i * columns + j) * Vec<T>::lanes);
    j += columns - j >= 3 ? 3 : columns - j;
  }
}

// The same for all taps.
template <class T>
static void depthwise_sums(const ConvImage<T>& image, const T* plane, const T* grad, i64 height,
                           i64 width, T* sum) {
  const auto rows_of = [&](i64 tap_row, i64& begin, i64& end) {
    for (begin = 0; begin < height && !has_row(image, begin, tap_row);) ++begin;
    for (end = height; end > begin && !has_row(image, end - 1, tap_row);) --end;
  };
  i64 i = 0;
  for (; i + 3 <= image.rows.taps; i += 3) {
    i64 begin[3], end[3], shared = 0, stop = height;
    for (int h = 0; h < 3; ++h) {
      rows_of(i + h, begin[h], end[h]);
      shared = begin[h] > shared ? begin[h] : shared, stop = end[h] < stop ? end[h] : stop;
    }
    if (stop < shared) stop = shared;
    for (int h = 0; h < 3; ++h) {
      const i64 before = end[h] < shared ? end[h] : shared,
                after = begin[h] > stop ? begin[h] : stop;
      depthwise_tap_rows<T, 1>(image, plane, grad, begin[h], before, width, i + h, sum);
      depthwise_tap_rows<T, 1>(image, plane, grad, after, end[h], width, i + h, sum);
    }
    depthwise_tap_rows<T, 3>(image, plane, grad, shared, stop, width, i, sum);
  }
  for (; i < image.rows.taps; ++i) {
    i64 begin, end;
    rows_of(i, begin, end);
    depthwise_tap_rows<T, 1>(image, plane, grad, begin, end, width, i, sum);
  }
}

// Of one group, over images [0, n): weight (m, taps).
template <class T>
static void conv_depthwise_weight_grad(const ConvWeightGrad<T>& v, i64 n, T* weight, T* workspace) {
  using V = Vec<T>;
  const ConvImage<T>& image = v.image;
  const i64 count = v.m * image.taps;
  T* const sums = workspace + DepthwiseWorkspace<T>(image, v.height, v.width, v.m).sums;
  fill(sums, count * V::lanes, T(0));
  for (i64 i = 0; i < n; ++i) {
    const ConvView<T> view = view_images(image, i, i + 1, 0, 1, 0, v.height, v.width, workspace);
    for (i64 m = 0; m < v.m; ++m)
      depthwise_sums(image, view.at, v.grad + i * v.grad_n + m * v.grad_m, v.height, v.width,
                     sums + m * image.taps * V::lanes);
  }
  for (i64 k = 0; k < count; ++k) weight[k] = reduce_add(V::load(sums + k * V::lanes));
}

}  // namespace vectile::VECTILE_TIER
