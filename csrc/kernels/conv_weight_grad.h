// Gradient of a convolution's weights: W'^T = X G^T, where a row of X is a channel and a tap.
// Rows of X are read where they lie, through one pointer for each; G is packed with its channels
// along the lanes, and serves all rows. The sum over images and pixels stays in the register tile
// for a unit of the sum, then in `partial`.
#pragma once

#include "kernels/conv_image.h"
#include "kernels/microkernel.h"
#include "kernels/packing.h"

namespace vectile::VECTILE_TIER {

// c[i][j] (+)= sum over runs and k < length of row[i][run + k] * b[k, j]; b advances all the time.
template <class E>
using RowsFunction = void (*)(const E* const* row, const i64* run, i64 runs, i64 length, const E* b,
                              E* c, i64 c_row, bool add);

template <class V, int MR, int NV>
static void rows_tile(const typename V::value_type* const* row, const i64* run, i64 runs,
                      i64 length, const typename V::value_type* b, typename V::value_type* c,
                      i64 c_row, bool add) {
  V acc[MR][NV];
  for (i64 r = 0; r < runs; ++r) {
    const i64 from = run[r];
    for (i64 k = 0; k < length; ++k, b += Tile<V>::nr) {
      V bv[NV];
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) bv[j] = V::load(b + j * V::lanes);
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) {
        const V av(row[i][from + k]);
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) acc[i][j] = multiply_add(av, bv[j], acc[i][j]);
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) {
      typename V::value_type* p = c + i * c_row + j * V::lanes;
      if (add) acc[i][j] = acc[i][j] + V::load(p);
      acc[i][j].store(p);
    }
}

template <class V>
struct RowsTable {
  RowsFunction<typename V::value_type> at[Tile<V>::nv][Tile<V>::mr];
  template <int NV, int MR>
  constexpr void fill() {
    at[NV - 1][MR - 1] = &rows_tile<V, MR, NV>;
    if constexpr (MR > 1)
      fill<NV, MR - 1>();
    else if constexpr (NV > 1)
      fill<NV - 1, Tile<V>::mr>();
  }
  constexpr RowsTable() : at{} { fill<Tile<V>::nv, Tile<V>::mr>(); }
};

template <class T>
struct GradWorkspace {  // offsets in elements
  i64 pixels, runs, strip, total;
  GradWorkspace(const ConvWeightGrad<T>& v, const ConvSum& sum) {
    const auto line = [](i64 x) { return (x + 15) / 16 * 16; };
    runs = sum.images * sum.rows;
    pixels = runs * v.width;
    strip = copy_elements(v.image, sum.images, sum.c1 - sum.c0);
    total = strip + line(pixels * Tile<Vec<T>>::nr);
    total += line(runs * static_cast<i64>(sizeof(i64) / sizeof(T)));
  }
};

template <class T>
static void conv_weight_grad_workspace(const ConvWeightGrad<T>& v, const ConvSum& sum,
                                       i64* elements) {
  *elements = GradWorkspace<T>(v, sum).total;
}

template <class T>
static void conv_weight_grad(const ConvWeightGrad<T>& v, const ConvSum& sum, T* workspace) {
  using V = Vec<T>;
  constexpr int mr = Tile<V>::mr, nr = Tile<V>::nr;
  static constexpr RowsTable<V> table;
  const GradWorkspace<T> at(v, sum);
  const ConvImage<T>& image = v.image;
  T* const strip = workspace + at.strip;
  i64* const run = reinterpret_cast<i64*>(strip + (at.pixels * nr + 15) / 16 * 16);
  const Panels panels((sum.c1 - sum.c0) * image.taps, mr);
  const i64 per_image = (v.height + sum.rows - 1) / sum.rows;
  for (i64 unit = sum.unit0; unit < sum.unit1; ++unit) {
    const i64 n0 = unit / per_image * sum.images, y0 = unit % per_image * sum.rows;
    const i64 n1 = n0 + sum.images < sum.count ? n0 + sum.images : sum.count;
    const i64 y1 = y0 + sum.rows < v.height ? y0 + sum.rows : v.height, height = y1 - y0;
    const ConvView<T> view = view_images(image, n0, n1, sum.c0, sum.c1, y0, y1, v.width, workspace);
    const bool follow = image.y_pitch == v.width;  // rows are one run
    const i64 runs = follow ? 1 : height, length = height * v.width / runs;
    for (i64 n = 0; n < n1 - n0; ++n)
      for (i64 y = 0; y < runs; ++y) run[n * runs + y] = n * view.n_pitch + y * image.y_pitch;
    for (i64 j = 0; j < v.m; j += nr) {
      const int columns = static_cast<int>(v.m - j < nr ? v.m - j : nr);
      for (i64 n = n0; n < n1; ++n)
        pack_panel<V, nr>(v.grad + n * v.grad_n + j * v.grad_m + y0 * v.width, v.grad_m, 1, columns,
                          height * v.width, strip + (n - n0) * height * v.width * nr);
      const int vectors = (columns + V::lanes - 1) / V::lanes;
      for (i64 p = 0; p < panels.count; ++p) {
        const int rows = panels.rows(p);
        const i64 start = panels.start(p);
        const T* row[mr];
        for (int i = 0; i < rows; ++i)
          row[i] = view.at + (start + i) / image.taps * image.c_pitch +
                   image.tap[(start + i) % image.taps];
        table.at[vectors - 1][rows - 1](
            row, run, (n1 - n0) * runs, length, strip,
            v.partial + (sum.c0 * image.taps + start) * v.partial_row + j, v.partial_row,
            unit > sum.unit0);
      }
    }
  }
}

template <class T>
static void conv_combine(const T* partial, i64 parts, i64 part_size, i64 row, i64 r0, i64 r1, i64 m,
                         T* weight, i64 weight_row) {
  using V = Vec<T>;
  constexpr int w = V::lanes;
  T block[w * w];
  for (i64 r = r0; r < r1; r += w) {
    const int rows = static_cast<int>(r1 - r < w ? r1 - r : w);
    for (i64 j = 0; j < m; j += w) {
      for (int i = 0; i < rows; ++i) {
        const T* from = partial + (r + i) * row + j;
        V sum = V::load(from);
        for (i64 part = 1; part < parts; ++part) sum = sum + V::load(from + part * part_size);
        sum.store(block + i * w);
      }
      transpose_block(block, w, rows, static_cast<int>(m - j < w ? m - j : w),
                      weight + j * weight_row + r, weight_row, rows);
    }
  }
}

}  // namespace vectile::VECTILE_TIER
