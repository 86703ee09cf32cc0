// The virtual matrix of a convolution, whose column is an output pixel and whose row is a channel
// and a tap: copies of images with their padding, and strips of the matrix packed from them.
#pragma once

#include "kernels/conv_types.h"
#include "kernels/microkernel.h"
#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

template <class T>
static void fill(T* to, i64 count, T value) {
  for (i64 i = 0; i < count; ++i) to[i] = value;
}

// Lanes [begin, end) of a vector, for any two numbers.
template <class T>
static typename Vec<T>::Mask lanes_between(i64 begin, i64 end) {
  const auto first = [](i64 n) {
    return first_mask<T>(static_cast<int>(n < 0 ? 0 : n < Vec<T>::lanes ? n : Vec<T>::lanes));
  };
  return first(end) & !first(begin);
}

// The elements of a row at `from` on that lie at its positions [low, high); zeros beside them.
template <class T>
VECTILE_INLINE Vec<T> load_between(const T* from, i64 low, i64 high) {
  if (low <= 0 && high >= Vec<T>::lanes) return Vec<T>::load(from);
  return Vec<T>::load(from, lanes_between<T>(low, high), Vec<T>());
}

// One source row into its phases: to[p, i] = row[origin + phase[p] + i * step], or zero outside.
// Writes up to lanes - 1 elements past the end.
template <class T>
static void copy_row(const ConvAxis& axis, const T* row, i64 length, T* to) {
  using V = Vec<T>;
  const T* const from = row + axis.origin;
  const i64 low = -axis.origin, high = axis.size - axis.origin;  // of the source, from `from`
  if (axis.step == 1) {
    const i64 begin = low < 0 ? 0 : low < length ? low : length;
    const i64 end = high < begin ? begin : high < length ? high : length;
    for (i64 i = 0; i < begin; i += V::lanes) V().store(to + i);
    i64 i = begin;
    for (; i + V::lanes <= end; i += V::lanes) V::load(from + i).store(to + i);
    if (i < end) V::load(from + i, static_cast<int>(end - i)).store(to + i);
    for (i = end; i < length; i += V::lanes) V().store(to + i);
    return;
  }
  if (axis.step == 2 && axis.phases == 2) {
    for (i64 i = 0; i < length; i += V::lanes) {
      const i64 a = 2 * i, b = a + V::lanes;
      V even, odd;
      deinterleave(load_between(from + a, low - a, high - a),
                   load_between(from + b, low - b, high - b), even, odd);
      const int count = static_cast<int>(length - i < V::lanes ? length - i : V::lanes);
      even.store(to + i, count);
      odd.store(to + length + i, count);
    }
    return;
  }
  for (i64 p = 0; p < axis.phases; ++p, to += length) {
    const i64 first = axis.origin + axis.phase[p];  // source position of i = 0
    i64 i = 0, at = first;
    for (; i < length && at < 0; ++i, at += axis.step) to[i] = T(0);
    for (; i < length && at < axis.size; ++i, at += axis.step) to[i] = row[at];
    for (; i < length; ++i) to[i] = T(0);
  }
}

template <class T>
struct ConvView {  // ConvImage with its first image, channel and output row at `at`
  const T* at;
  i64 n_pitch;
};

template <class T>
static i64 copy_elements(const ConvImage<T>& image, i64 images, i64 channels) {
  return image.copied ? (images * channels * image.c_pitch + 31) / 16 * 16 : 0;
}

// Images [n0, n1), channels [c0, c1), output rows [y0, y1): in place, or copied to `to`.
template <class T>
static ConvView<T> view_images(const ConvImage<T>& image, i64 n0, i64 n1, i64 c0, i64 c1, i64 y0,
                               i64 y1, i64 width, T* to) {
  if (!image.copied)
    return {image.data + n0 * image.n_pitch + c0 * image.c_pitch + y0 * image.y_pitch,
            image.n_pitch};
  const ConvAxis &rows = image.rows, &columns = image.columns;
  const i64 n_pitch = (c1 - c0) * image.c_pitch, length = width + columns.reach;
  for (i64 n = n0; n < n1; ++n)
    for (i64 c = c0; c < c1; ++c) {
      const T* plane = image.data + n * image.n_stride + c * image.c_stride;
      T* const copy = to + (n - n0) * n_pitch + (c - c0) * image.c_pitch;
      for (i64 p = 0; p < rows.phases; ++p) {
        T* row = copy + p * (image.block_rows + rows.reach) * image.y_pitch;
        for (i64 i = 0; i < y1 - y0 + rows.reach; ++i, row += image.y_pitch) {
          const i64 h = rows.origin + rows.phase[p] + (y0 + i) * rows.step;
          if (h < 0 || h >= rows.size)
            fill(row, image.y_pitch, T(0));
          else
            copy_row(columns, plane + h * image.h_stride, length, row);
        }
      }
    }
  return {to, n_pitch};
}

// How a strip's vectors are put together: lanes of `mask` lie at `from` + their number.
template <class T>
struct Strip {
  static constexpr int vectors = Tile<Vec<T>>::nv;
  struct Part {
    i64 from;
    typename Vec<T>::Mask mask;
  } part[Tile<Vec<T>>::nr];
  int end[vectors];     // of each vector's parts
  bool whole[vectors];  // it is one part, of all lanes
};

struct ConvPixel {
  i64 n, y, x;
};

// The next `columns` pixels from `at` on of images of `height` x `width` output pixels, one after
// the other; moves `at` behind them.
template <class T>
static void cut_strip(const ConvImage<T>& image, i64 n_pitch, i64 height, i64 width, i64 columns,
                      ConvPixel& at, Strip<T>& strip) {
  constexpr int w = Vec<T>::lanes;
  if (image.y_pitch == width) width *= height, height = 1;  // rows follow one another
  int count = 0;
  for (int v = 0; v < Strip<T>::vectors; ++v) {
    const i64 lanes = columns - v * w < w ? columns - v * w : w;
    strip.whole[v] = lanes == w && width - at.x >= w;
    for (i64 lane = 0; lane < lanes;) {
      const i64 run = width - at.x < lanes - lane ? width - at.x : lanes - lane;
      strip.part[count++] = {at.n * n_pitch + at.y * image.y_pitch + at.x - lane,
                             lanes_between<T>(lane, lane + run)};
      lane += run, at.x += run;
      if (at.x == width) at.x = 0, ++at.y;
      if (at.y == height) at.y = 0, ++at.n;
    }
    strip.end[v] = count;
  }
}

// Steps [k0, k1) of K for the strip's pixels, Tile::nr elements a step.
template <class T>
static void pack_strip(const ConvImage<T>& image, const T* at, const Strip<T>& strip, i64 k0,
                       i64 k1, T* to) {
  using V = Vec<T>;
  const i64 depth = image.channels * image.taps, taps = image.taps;
  const i64 end = k1 < depth ? k1 : depth;
  i64 c = taps ? k0 / taps : 0, t = taps ? k0 % taps : 0;
  for (i64 k = k0; k < end;) {
    const T* channel = at + c * image.c_pitch;
    const i64 stop = end - k < taps - t ? t + end - k : taps;
    k += stop - t;
    for (; t < stop; ++t) {
      const T* from = channel + image.tap[t];
#pragma GCC unroll 16
      for (int v = 0; v < Strip<T>::vectors; ++v, to += V::lanes) {
        int part = v ? strip.end[v - 1] : 0;
        V packed;
        if (strip.whole[v]) {
          packed = V::load(from + strip.part[part].from);
        } else if (part < strip.end[v]) {
          packed = V::load(from + strip.part[part].from, strip.part[part].mask);
          for (++part; part < strip.end[v]; ++part)
            packed = V::load(from + strip.part[part].from, strip.part[part].mask, packed);
        }
        packed.store(to);
      }
    }
    t = 0, ++c;
  }
  if (k1 > depth) fill(to, Tile<V>::nr, T(1));
}

}  // namespace vectile::VECTILE_TIER
