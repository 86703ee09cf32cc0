// conv: out = activation(W X + bias), where X is the virtual matrix of kernels/conv_image.h.
// 1. A block's rows of its images are copied with their padding, unless they can be read in place.
// 2. K, which runs over (channel, tap) and ends with the bias against a row of ones, is cut into
//    pieces of kc. For every strip of nr pixels the kc x nr piece of X is packed into the L1 cache.
// 3. All panels of mr output channels meet the strip in one register tile.
// The order of summation is that of K for every output: |error| <= (K + 1) eps |W| |X|.
#include "kernels/conv_depthwise.h"
#include "kernels/conv_scatter.h"
#include "kernels/conv_tile.h"
#include "kernels/conv_weight_grad.h"
#include "kernels/epilogue.h"

namespace vectile::VECTILE_TIER {

template <class T>
struct ConvWorkspace {  // offsets in elements
  i64 strip, c, c_row, total;
  ConvWorkspace(const Conv<T>& v, const ConvBlock& block) {
    using V = Vec<T>;
    const i64 images = block.n1 - block.n0, kc = v.kc < v.depth() ? v.kc : v.depth();
    const Panels panels(v.m, Tile<V>::mr);
    strip = copy_elements(v.image, images, v.image.channels);
    c = strip + (kc * Tile<V>::nr + V::lanes + 15) / 16 * 16;
    c_row = (images * (block.y1 - block.y0) * v.width + 15) / 16 * 16;
    total = c + (v.joined ? (panels.start(block.p1) - panels.start(block.p0)) * c_row : 0);
  }
};

template <class T>
static void conv_workspace(const Conv<T>& v, const ConvBlock& block, i64* elements) {
  *elements = ConvWorkspace<T>(v, block).total;
}

// Rows [m0, m1) of the joined block to their places.
template <class T>
static void copy_out(const Conv<T>& v, const ConvBlock& block, i64 m0, i64 m1, const T* c,
                     i64 c_row) {
  using V = Vec<T>;
  const i64 height = block.y1 - block.y0;
  for (i64 n = block.n0; n < block.n1; ++n)
    for (i64 m = m0; m < m1; ++m) {
      const T* from = c + (m - m0) * c_row + (n - block.n0) * height * v.width;
      T* to = v.out + n * v.out_n + m * v.out_m + block.y0 * v.out_y;
      const bool dense = v.out_x == 1 && v.out_y == v.width;
      const i64 rows = dense ? 1 : height, width = dense ? height * v.width : v.width;
      for (i64 y = 0; y < rows; ++y, from += width, to += v.out_y) {
        i64 x = 0;
        if (v.out_x == 1)
          for (; x + V::lanes <= width; x += V::lanes) V::load(from + x).store(to + x);
        for (; x < width; ++x) to[x * v.out_x] = from[x];
      }
    }
}

// Whether every vector of pixels lies in a row of the image. Channels a page apart would meet in
// the same sets of the L1 cache.
template <class T>
static bool reads_in_place(const Conv<T>& v, i64 pixels) {
  constexpr i64 w = Vec<T>::lanes;
  const bool spread = v.image.copied || v.image.c_pitch * sizeof(T) % 1024 != 0;
  return spread && v.image.taps > 0 &&
         (v.width % w == 0 || (v.image.y_pitch == v.width && pixels % w == 0));
}

template <class T>
static void conv(const Conv<T>& v, const ConvBlock& block, T* workspace) {
  using V = Vec<T>;
  constexpr int mr = Tile<V>::mr, nr = Tile<V>::nr;
  static constexpr StepsTable<V> table;
  const ConvWorkspace<T> at(v, block);
  const ConvImage<T>& image = v.image;
  const Panels panels(v.m, mr);
  const i64 images = block.n1 - block.n0, height = block.y1 - block.y0, pixels = height * v.width;
  const ConvView<T> view = view_images(image, block.n0, block.n1, 0, image.channels, block.y0,
                                       block.y1, v.width, workspace);
  T* const strip = workspace + at.strip;
  const i64 m0 = panels.start(block.p0), c_row = v.joined ? at.c_row : v.out_m;
  // Strips run through `rounds` times n pixels.
  const i64 rounds = v.joined ? 1 : images, n = v.joined ? images * pixels : pixels;
  const bool in_place = reads_in_place(v, pixels);
  Strip<T> parts;
  Steps<T> steps{{}, image.tap, image.taps, image.c_pitch, 0, 0, false};

  for (i64 k0 = 0; k0 < v.depth(); k0 += v.kc) {
    const i64 k1 = v.depth() - k0 < v.kc ? v.depth() : k0 + v.kc;
    const bool last = k1 == v.depth();
    const T* weight = v.weight + k0 / v.kc * panels.count * v.panel;
    if (in_place) {
      steps.bias = last && v.bias;
      steps.t0 = k0 % image.taps, steps.count = k1 - k0 - steps.bias;
    }
    for (i64 round = 0; round < rounds; ++round) {
      const T* const from = view.at + round * view.n_pitch;
      T* const c = v.joined
                       ? workspace + at.c
                       : v.out + (block.n0 + round) * v.out_n + m0 * v.out_m + block.y0 * v.out_y;
      ConvPixel pixel = {0, 0, 0};
      for (i64 j = 0; j < n; j += nr) {
        const int columns = static_cast<int>(n - j < nr ? n - j : nr);
        cut_strip(image, view.n_pitch, height, v.width, columns, pixel, parts);
        if (in_place)
          for (int i = 0; i * V::lanes < columns; ++i)
            steps.at[i] = from + parts.part[i].from + k0 / image.taps * image.c_pitch;
        else
          pack_strip(image, from, parts, k0, k1, strip);
        for (i64 p = block.p0; p < block.p1; ++p) {
          const int rows = panels.rows(p);
          const T* panel = weight + p * v.panel;
          T* tile = c + (panels.start(p) - m0) * c_row + j;
          if (in_place)
            table.at[columns / V::lanes - 1][rows - 1](steps, panel, tile, c_row, k0 > 0);
          else
            tile_function<V>(rows, columns)(k1 - k0, panel, 1, mr, strip, nr, tile, c_row,
                                            columns % V::lanes, k0 > 0, {});
          if (last) finish_block<T>(tile, c_row, rows, columns, nullptr, v.activation);
        }
      }
    }
  }
  if (v.joined) copy_out(v, block, m0, panels.start(block.p1), workspace + at.c, c_row);
}

template <class T>
static void conv_pack(const ConvWeight<T>& w, i64 p, i64 kc, i64 panel, T* packed) {
  using V = Vec<T>;
  constexpr int mr = Tile<V>::mr;
  const Panels panels(w.m, mr);
  const int rows = panels.rows(p);
  const i64 m0 = panels.start(p), depth = w.channels * w.taps, end = depth + (w.bias ? 1 : 0);
  const T* const data = w.data + m0 * w.m_stride;
  for (i64 k0 = 0; k0 < end; k0 += kc) {
    T* to = packed + (k0 / kc * panels.count + p) * panel;
    const i64 k1 = end - k0 < kc ? end : k0 + kc, stop = k1 < depth ? k1 : depth;
    if (w.dense && (w.c_stride == w.taps || w.taps == 1)) {  // steps of K are equally far apart
      const i64 step = w.taps == 1 ? w.c_stride : 1;
      if (k0 < stop) pack_panel<V, mr>(data + k0 * step, w.m_stride, step, rows, stop - k0, to);
    } else {
      i64 c = w.taps ? k0 / w.taps : 0, t = w.taps ? k0 % w.taps : 0;
      T* step = to;
      for (i64 k = k0; k < stop; t = 0, ++c) {
        const i64 count = stop - k < w.taps - t ? stop - k : w.taps - t;
        const T* channel = data + c * w.c_stride;
        if (w.dense) {
          pack_panel<V, mr>(channel + t, w.m_stride, 1, rows, count, step);
        } else {
          for (i64 s = 0; s < count; ++s)
            for (int i = 0; i < rows; ++i)
              step[s * mr + i] = channel[i * w.m_stride + w.tap[t + s]];
        }
        k += count, step += count * mr;
      }
    }
    if (k1 > depth)
      for (int i = 0; i < rows; ++i) to[(depth - k0) * mr + i] = w.bias[m0 + i];
  }
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
