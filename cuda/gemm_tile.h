// Pieces of a matrix product on tensor cores: how a block's tiles of the operands come to shared
// memory and from there to registers, and the arithmetics that multiply them.
//
// An operand is lines (the rows of A, the columns of B) of k elements. A stage of shared memory
// holds 64 bytes' worth of k of each line of the block, in chunks of 16 bytes as they lie in global
// memory: along k, or along the lines. Chunks of a row are permuted by an exclusive or, so that the
// eight that are read together lie in different banks.
#pragma once

#include "rows.h"

namespace vectile::cuda {

constexpr int kStepBytes = 64;  // of k in a stage
constexpr int kFragment = 16;   // lines, and elements along k, of a fragment

// lines x k elements of S: element (i, p) is at[i line + p depth].
template <class S>
struct Lines {
  const S* at;
  i64 count, k, line, depth;
  bool vectors;  // chunks of the axis that is copied along are whole and aligned

  // The same some elements on.
  __device__ Lines moved(i64 by) const {
    Lines x = *this;
    x.at += by;
    return x;
  }
};

// Where the chunks of a stage's tile lie.
template <class S, int LINES, bool along_k>
struct SharedTile {
  static constexpr int depth = kStepBytes / sizeof(S), size = Vector<S>::size;
  static constexpr int width = (along_k ? depth : LINES) / size;  // chunks of a row
  static constexpr int bytes = LINES * kStepBytes;

  __device__ static int offset(int row, int chunk) {
    const int swizzle = along_k ? row / 2 % 4 : sizeof(S) == 2 ? row % 8 : row / 4 % 4 * 2;
    return (row * width + (chunk ^ swizzle)) * kVectorBytes;
  }
};

// The chunks of a tile that a thread copies: all in the same place across its rows.
template <class S, int LINES, bool along_k, int THREADS>
struct Copier {
  using Tile = SharedTile<S, LINES, along_k>;
  static constexpr int size = Tile::size, rows = THREADS / Tile::width;
  static constexpr int count = LINES * Tile::depth / size / THREADS;
  static_assert(THREADS % Tile::width == 0 && LINES * Tile::depth % (size * THREADS) == 0);
  const S* from;
  int lines;  // of the operand from the first chunk's on
  bool whole;
  i64 line, depth;

  __device__ static int row() { return static_cast<int>(threadIdx.x) / Tile::width; }
  __device__ static int chunk() { return static_cast<int>(threadIdx.x) % Tile::width; }

  __device__ Copier(const Lines<S>& x, i64 first) : whole(x.vectors), line(x.line), depth(x.depth) {
    const int l = along_k ? row() : chunk() * size, d = along_k ? chunk() * size : row();
    from = x.at + (first + l) * line + d * depth;
    lines = static_cast<int>(x.count - first < LINES ? x.count - first : LINES) - l;
  }

  // Starts the copies of the next step, with k of the operand left; zeros outside it.
  __device__ void copy(char* tile, i64 k) {
    k -= along_k ? chunk() * size : row();
    const i64 across = (along_k ? line : depth) * rows;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      char* const to = tile + Tile::offset(row() + i * rows, chunk());
      const S* const at = from + i * across;
      const bool inside = along_k ? lines > i * rows : k > i * rows;
      if (whole) {
        copy_async(to, at, inside && (along_k ? k : lines) > 0);
        continue;
      }
      const i64 stride = along_k ? depth : line, left = inside ? (along_k ? k : lines) : 0;
      if constexpr (sizeof(S) == 4) {
#pragma unroll 1
        for (int e = 0; e < size; ++e) copy_async<4>(to + 4 * e, at + e * stride, e < left);
      } else {
#pragma unroll 1
        for (int e = 0; e < size; e += 4) {
          struct alignas(4 * sizeof(S)) {
            S at[4];
          } v;
#pragma unroll
          for (int j = 0; j < 4; ++j) v.at[j] = e + j < left ? at[(e + j) * stride] : S{};
          *reinterpret_cast<decltype(v)*>(to + e * static_cast<int>(sizeof(S))) = v;
        }
      }
    }
    from += Tile::depth * depth;
  }
};

// ---- fragments: 16 lines from `line` on, 16 elements along k from `k` on ------------------------
//
// With g = lane / 4: registers 0 and 2 hold line g, 1 and 3 line g + 8, as multiply_add has them
// for A; for the columns g of B they are its first and last register, and 1 and 3 those of the
// columns g + 8.

// Elements of two bytes, in order.
template <class Tile>
__device__ __forceinline__ void load_halves(unsigned (&r)[4], const char* tile, int line, int k) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int in_matrix = lane % 8, second = lane / 8 % 2, upper = lane / 16;
  if constexpr (Tile::width * Tile::size == Tile::depth)
    load_matrices(r, tile + Tile::offset(line + 8 * second + in_matrix, k / 8 + upper));
  else
    load_matrices_transposed(r, tile + Tile::offset(k + 8 * upper + in_matrix, line / 8 + second));
}

// Elements 4t to 4t + 3 along k, t = lane % 4, of the lines g and g + 8: what a product takes for
// its k in any order is the same in both operands.
template <bool along_k, class Tile>
__device__ __forceinline__ void load_floats(float (&x)[2][4], const char* tile, int line, int k) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at = line + 8 * half + lane / 4;
    if constexpr (along_k) {
      const auto v = *reinterpret_cast<const Vector<float>*>(tile + Tile::offset(at, k / 4 + t));
#pragma unroll
      for (int e = 0; e < 4; ++e) x[half][e] = v.at[e];
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e)
        x[half][e] =
            reinterpret_cast<const float*>(tile + Tile::offset(k + 4 * t + e, at / 4))[at % 4];
    }
  }
}

// ---- arithmetics --------------------------------------------------------------------------------

// A product of fragments is a sum of products of their pieces, added up in `sums` places. Tensor
// cores cut off what a sum loses of a product. Where there are two, sum 0, of the first term alone,
// is therefore that of a step and is added to those before it by an addition that rounds (Ootomo
// and Yokota, arXiv 2203.03341).
struct Term {
  int a, b, sum;
};

template <int PIECES>
struct Fragment {
  unsigned at[PIECES][4];
};

// float16 and bfloat16, summed in float32.
template <class S>
struct Halves {
  using Stored = S;
  using Operand = S;
  static constexpr int pieces = 1, terms = 1, sums = 1, blocks = 2;
  __device__ static constexpr Term term(int) { return {0, 0, 0}; }
  template <bool along_k, class Tile>
  __device__ static Fragment<pieces> load(const char* tile, int line, int k) {
    Fragment<pieces> f;
    load_halves<Tile>(f.at[0], tile, line, k);
    return f;
  }
};

// float32 rounded to 11 bits: two products of half of k each.
struct Rounded {
  using Stored = float;
  using Operand = Tf32;
  static constexpr int pieces = 2, terms = 2, sums = 1, blocks = 1;
  __device__ static constexpr Term term(int i) { return {i, i, 0}; }
  template <bool along_k, class Tile>
  __device__ static Fragment<pieces> load(const char* tile, int line, int k) {
    float x[2][4];
    load_floats<along_k, Tile>(x, tile, line, k);
    Fragment<pieces> f;
#pragma unroll
    for (int p = 0; p < pieces; ++p)
#pragma unroll
      for (int r = 0; r < 4; ++r) f.at[p][r] = __float_as_uint(to_tf32(x[r % 2][2 * p + r / 2]));
    return f;
  }
};

// float32 as the exact sum of three bfloat16 numbers of 8 bits each (Henry, Tang and Heinecke,
// arXiv 1904.06376): as many steps of a tensor core as three TF32 products, with float32's range.
//
// x = x0 + x1 + x2, |x1| < 2^-7 |x|, |x2| <= 2^-16 |x|; the products left out, of x1 y2 or less,
// are at most 2^-22 (1 + 2^-8) |x y|. x0 is cut off, not rounded, so that it is finite where x is.
// Its products have a sum of their own, which the small ones lose no bits in, and which is infinite
// or NaN as that of the x y is: then it is the result, for the rest of an infinity is NaN.
struct Split {
  using Stored = float;
  using Operand = BFloat16;
  static constexpr int pieces = 3, terms = 6, sums = 2, blocks = 1;
  __device__ static constexpr Term term(int i) {
    constexpr Term all[] = {{0, 0, 0}, {0, 2, 1}, {2, 0, 1}, {1, 1, 1}, {0, 1, 1}, {1, 0, 1}};
    return all[i];
  }
  // The upper halves of two numbers, the first one's below.
  __device__ static unsigned upper(float x, float y) {
    return __byte_perm(__float_as_uint(x), __float_as_uint(y), 0x7632);
  }
  __device__ static float cut(float x) { return __uint_as_float(__float_as_uint(x) & 0xffff0000u); }
  // The pieces of two numbers.
  __device__ static void cut_up(float x, float y, unsigned (&pair)[pieces]) {
    pair[0] = upper(x, y);
    x -= cut(x);
    y -= cut(y);
    const float u = nearest(x), v = nearest(y);
    pair[1] = upper(u, v);
    pair[2] = upper(x - cut(u), y - cut(v));
  }
  __device__ static float nearest(float x) {  // where it is cut
    return __uint_as_float(__float_as_uint(x) + 0x8000u);
  }
  template <bool along_k, class Tile>
  __device__ static Fragment<pieces> load(const char* tile, int line, int k) {
    float x[2][4];
    load_floats<along_k, Tile>(x, tile, line, k);
    Fragment<pieces> f;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      unsigned pair[pieces];
      cut_up(x[r % 2][r / 2 * 2], x[r % 2][r / 2 * 2 + 1], pair);
#pragma unroll
      for (int p = 0; p < pieces; ++p) f.at[p][r] = pair[p];
    }
    return f;
  }
};

}  // namespace vectile::cuda
