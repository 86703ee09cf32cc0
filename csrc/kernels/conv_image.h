// The virtual matrix of a convolution, whose column is an output pixel and whose row is a channel
// and a tap: copies of images with their padding, and strips of the matrix packed from them.
#pragma once

#include "kernels/conv_types.h"
#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

template <class T>
static void fill(T* to, i64 count, T value) {
  for (i64 i = 0; i < count; ++i) to[i] = value;
}

// One source row into its phases: to[p, i] = row[origin + phase[p] + i * step].
template <class T>
static void copy_row(const ConvAxis& axis, const T* row, i64 length, T* to) {
  using V = Vec<T>;
  for (i64 p = 0; p < axis.phases; ++p, to += length) {
    const i64 first = axis.origin + axis.phase[p];  // source position of i = 0
    i64 low = first < 0 ? (-first + axis.step - 1) / axis.step : 0;
    low = low < length ? low : length;
    i64 high = first < axis.size ? (axis.size - first + axis.step - 1) / axis.step : 0;
    high = high < length ? high : length;
    high = high < low ? low : high;
    fill(to, low, T(0));
    const T* from = row + first;
    i64 i = low;
    if (axis.step == 1) {
      for (; i + V::lanes <= high; i += V::lanes) V::load(from + i).store(to + i);
      if (i < high) {
        const int tail = static_cast<int>(high - i);
        V::load(from + i, tail).store(to + i, tail);
      }
    } else {
      for (; i < high; ++i) to[i] = from[i * axis.step];
    }
    fill(to + high, length - high, T(0));
  }
}

template <class T>
struct ConvView {  // ConvImage with its first image, channel and output row at `at`
  const T* at;
  i64 n_pitch;
};

template <class T>
static i64 copy_elements(const ConvImage<T>& image, i64 images, i64 channels) {
  return image.copied ? (images * channels * image.c_pitch + 15) / 16 * 16 : 0;
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

// A run of pixels of a strip that lie next to each other in the image; at most one vector.
struct Segment {
  i64 from;
  int to, count;
};

// Pixels [j0, j0 + columns) of images of `height` x `width` output pixels, one after the other.
template <class T>
static int cut_strip(const ConvImage<T>& image, i64 n_pitch, i64 height, i64 width, i64 j0,
                     i64 columns, Segment* segments) {
  const i64 pixels = height * width;
  if (image.y_pitch == width) width = pixels, height = 1;  // rows follow one another
  i64 n = j0 / pixels, y = (j0 - n * pixels) / width, x = j0 - n * pixels - y * width;
  int count = 0;
  for (i64 j = 0; j < columns;) {
    const i64 left = width - x < columns - j ? width - x : columns - j;
    const int run = left < Vec<T>::lanes ? static_cast<int>(left) : Vec<T>::lanes;
    segments[count++] = {n * n_pitch + y * image.y_pitch + x, static_cast<int>(j), run};
    j += run, x += run;
    if (x == width) x = 0, ++y;
    if (y == height) y = 0, ++n;
  }
  return count;
}

// Steps [k0, k1) of K for the strip's pixels, kWidth elements a step. Vectors are stored whole:
// what spills over is stored again by the next segment or step, and lands behind `to` at the end.
template <class T, int kWidth>
static void pack_strip(const ConvImage<T>& image, const T* at, const Segment* segments, int count,
                       i64 k0, i64 k1, T* to) {
  using V = Vec<T>;
  const i64 depth = image.channels * image.taps, taps = image.taps;
  const i64 end = k1 < depth ? k1 : depth;
  i64 c = taps ? k0 / taps : 0, t = taps ? k0 % taps : 0;
  for (i64 k = k0; k < end;) {
    const T* channel = at + c * image.c_pitch;
    const i64 stop = end - k < taps - t ? t + end - k : taps;
    k += stop - t;
    for (; t < stop; ++t, to += kWidth) {
      const T* from = channel + image.tap[t];
      for (int s = 0; s < count; ++s)
        V::load(from + segments[s].from, segments[s].count).store(to + segments[s].to);
    }
    t = 0, ++c;
  }
  if (k1 > depth) fill(to, kWidth, T(1));
}

}  // namespace vectile::VECTILE_TIER
