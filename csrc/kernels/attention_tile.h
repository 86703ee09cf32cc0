// Matrix products on the tiles of attention, and the layouts they read.
//
// C (m x n) = or += A (m x depth) B (depth x n), MR x NV vectors of C at a time in registers. A is
// read one element at a time (broadcast), B in whole vectors:
//   A: "rows" of a fixed stride (a score tile, a copy of queries) or its "columns" (the transpose);
//   B: row-major rows padded to whole vectors, or panels of kPanel columns (packed K^T, V^T).
#pragma once

#include "kernels/attention_types.h"
#include "kernels/microkernel.h"
#include "kernels/packing.h"
#include "kernels/rotary_row.h"
#include "simd/math.h"
#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

// Register tile: MR * NV accumulators, NV vectors of B and one broadcast fit the register file.
template <class T>
struct AttentionTile {
  static constexpr int lanes = Vec<T>::lanes;
  static constexpr int rows = lanes == 1 ? 4 : kRegisters == 32 ? 12 : 6;
  static constexpr int vectors = 2;
  static constexpr int panel = vectors * lanes;
};

constexpr i64 kDepth = 256;                // head sizes up to this are one chunk of a row copy
constexpr i64 kDepthStride = kDepth + 16;  // off the power of two: rows fall into different L1 sets

static inline i64 round_up(i64 n, i64 multiple) { return (n + multiple - 1) / multiple * multiple; }
static inline i64 smaller(i64 a, i64 b) { return a < b ? a : b; }
static inline i64 larger(i64 a, i64 b) { return a > b ? a : b; }

template <int I>
struct Index {
  constexpr operator int() const { return I; }
};

// f(typed p): an array of `dtype`, which is T or a half type that T = float widens.
template <class T, class F>
VECTILE_INLINE void as_stored(DType dtype, const void* p, F&& f) {
  if constexpr (sizeof(T) == 4) {
    if (dtype == DType::f16) return f(static_cast<const Float16*>(p));
    if (dtype == DType::bf16) return f(static_cast<const BFloat16*>(p));
  }
  f(static_cast<const T*>(p));
}
template <class T, class F>
VECTILE_INLINE void as_stored(DType dtype, void* p, F&& f) {
  if constexpr (sizeof(T) == 4) {
    if (dtype == DType::f16) return f(static_cast<Float16*>(p));
    if (dtype == DType::bf16) return f(static_cast<BFloat16*>(p));
  }
  f(static_cast<T*>(p));
}

// f(Index<0>), ..., f(Index<N - 1>): unrolled before optimisation, so arrays become registers.
template <int N, class F>
VECTILE_INLINE void unroll(F&& f) {
  if constexpr (N > 0) {
    unroll<N - 1>(f);
    f(Index<N - 1>{});
  }
}

// Cuts [begin, end) into groups of SIZE, then of 8, 4, 2 and 1 rows: f(Index<size>, first row).
// The last 16 rows are 8 and 8, not 12 and 4.
template <int SIZE, class F>
VECTILE_INLINE void row_groups(i64 begin, i64 end, F&& f) {
  for (; end - begin >= SIZE && (SIZE <= 8 || end - begin != 16); begin += SIZE)
    f(Index<SIZE>{}, begin);
  if constexpr (SIZE > 1)
    row_groups<(SIZE > 8 ? 8 : SIZE > 4 ? 4 : SIZE > 2 ? 2 : 1)>(begin, end, f);
}

// multiply_tile for one vector of B, whose even and odd steps have sums of their own: MR sums alone
// would wait for one another.
template <class T, int MR, int A_ROW>
VECTILE_INLINE void multiply_column(Vec<T> (&acc)[MR][1], i64 depth, const T* a, i64 a_step,
                                    const T* b, i64 b_step) {
  using V = Vec<T>;
  V odd[MR];
  unroll<MR>([&](auto i) VECTILE_LAMBDA { odd[i] = V(T(0)); });
  for (; depth > 1; depth -= 2, a += 2 * a_step, b += 2 * b_step) {
    const V b0 = V::load(b), b1 = V::load(b + b_step);
    unroll<MR>([&](auto i) VECTILE_LAMBDA {
      acc[i][0] = multiply_add(V(a[i * A_ROW]), b0, acc[i][0]);
      odd[i] = multiply_add(V(a[i * A_ROW + a_step]), b1, odd[i]);
    });
  }
  if (depth > 0) multiply_tile<V, MR, 1>(acc, depth, a, A_ROW, a_step, b, b_step);
  unroll<MR>([&](auto i) VECTILE_LAMBDA { acc[i][0] = acc[i][0] + odd[i]; });
}

enum class Into { assign, add, scale_add };  // C = AB, C += AB, C = diag(factor) C + AB

template <class T, int MR, int NV, int A_ROW, Into into>
static inline void tile(const T* a, i64 a_step, const T* b, i64 b_step, i64 depth, T* c, i64 ldc,
                        const T* factor) {
  using V = Vec<T>;
  constexpr int w = V::lanes;
  V acc[MR][NV];
  unroll<MR>([&](auto i) VECTILE_LAMBDA {
    unroll<NV>([&](auto j) VECTILE_LAMBDA {
      if constexpr (into == Into::assign)
        acc[i][j] = V(T(0));
      else if constexpr (into == Into::add)
        acc[i][j] = V::load(c + i * ldc + j * w);
      else
        acc[i][j] = V::load(c + i * ldc + j * w) * V(factor[i]);
    });
  });
  if constexpr (NV == 1 && into == Into::assign)  // other sums equal those that skip zeros
    multiply_column<T, MR, A_ROW>(acc, depth, a, a_step, b, b_step);
  else
    multiply_tile<V, MR, NV>(acc, depth, a, A_ROW, a_step, b, b_step);
  unroll<MR>([&](auto i) VECTILE_LAMBDA {
    unroll<NV>([&](auto j) VECTILE_LAMBDA { acc[i][j].store(c + i * ldc + j * w); });
  });
}

// All columns of MR rows of C: n is a whole number of vectors, B row-major.
template <class T, int MR, int A_ROW, Into into>
static inline void tile_row(const T* a, i64 a_step, const T* b, i64 b_step, i64 n, i64 depth, T* c,
                            i64 ldc, const T* factor) {
  using Tile = AttentionTile<T>;
  i64 j = 0;
  for (; j + Tile::panel <= n; j += Tile::panel)
    tile<T, MR, Tile::vectors, A_ROW, into>(a, a_step, b + j, b_step, depth, c + j, ldc, factor);
  for (; j < n; j += Tile::lanes)
    tile<T, MR, 1, A_ROW, into>(a, a_step, b + j, b_step, depth, c + j, ldc, factor);
}

// The same sum, but a zero in A contributes nothing whatever B holds: 0 * NaN is not formed.
template <class T, Into into>
static void tile_row_skipping_zeros(i64 m, const T* a, i64 a_row, i64 a_step, const T* b,
                                    i64 b_step, i64 n, i64 depth, T* c, i64 ldc, const T* factor) {
  using V = Vec<T>;
  for (i64 i = 0; i < m; ++i) {
    T* ci = c + i * ldc;
    if constexpr (into == Into::scale_add)
      for (i64 j = 0; j < n; j += V::lanes) (V::load(ci + j) * V(factor[i])).store(ci + j);
    for (i64 k = 0; k < depth; ++k) {
      const T x = a[i * a_row + k * a_step];
      if (x == T(0)) continue;
      for (i64 j = 0; j < n; j += V::lanes)
        multiply_add(V(x), V::load(b + k * b_step + j), V::load(ci + j)).store(ci + j);
    }
  }
}

// y[j] = f(x[j]) for j < n, and zeros up to a whole number of vectors (y has room for them).
template <class T, class S, class F>
VECTILE_INLINE void map_padded(const S* x, T* y, i64 n, F&& f) {
  using V = Vec<T>;
  i64 j = 0;
  for (; j + V::lanes <= n; j += V::lanes) f(load_as<V>(x + j)).store(y + j);
  if (j < n) {
    const int m = static_cast<int>(n - j);
    select(first_mask<T>(m), f(load_as<V>(x + j, m)), V(T(0))).store(y + j);
  }
}

// Copy of `rows` rows of length n, scaled, as chunks [n / kDepth][rows][kDepthStride], each row
// padded with zeros to whole vectors.
template <class T, class S>
static void copy_chunked(const S* x, i64 stride, i64 rows, i64 n, T scale, i64 capacity, T* y) {
  for (i64 c = 0; c < n; c += kDepth, y += capacity * kDepthStride)
    for (i64 i = 0; i < rows; ++i)
      map_padded(x + i * stride + c, y + i * kDepthStride, smaller(kDepth, n - c),
                 [=](Vec<T> v) VECTILE_LAMBDA { return v * Vec<T>(scale); });
}
static inline i64 chunked_size(i64 rows, i64 n) {
  return (n + kDepth - 1) / kDepth * rows * kDepthStride;
}

// X (rows x n) transposed into panels [rows / panel][n][panel]; the last vector with a row is
// filled with zeros, those after it are left alone.
template <class T, class S>
static void pack_transposed(const S* x, i64 stride, i64 rows, i64 n, T* y) {
  constexpr int width = AttentionTile<T>::panel, w = Vec<T>::lanes;
  for (i64 r = 0; r < rows; r += width, y += n * width) {
    const i64 count = smaller(width, rows - r);
    for (i64 s = 0; s < n; s += w)
      for (i64 i = 0; i < count; i += w)
        transpose_block(x + (r + i) * stride + s, stride, static_cast<int>(smaller(w, count - i)),
                        static_cast<int>(smaller(w, n - s)), y + s * width + i, width, w);
  }
}

// Rows of B as the products read them: in place when they are whole vectors of T and adjacent (or
// too few products follow to pay for a copy), else copied and padded into `copy`.
template <class T>
struct RowMajor {
  const T* data;
  i64 stride;
  bool copied;
  RowMajor(DType dtype, const void* x, i64 row_stride, i64 n, bool few, const T* copy)
      : data(copy), stride(round_up(n, Vec<T>::lanes)), copied(true) {
    if (dtype != DType::f16 && dtype != DType::bf16 && n == stride && (row_stride == n || few)) {
      data = static_cast<const T*>(x);
      stride = row_stride;
      copied = false;
    }
  }
};
template <class T, class S>
static void copy_rows(const S* x, i64 row_stride, i64 rows, i64 n, T* copy) {
  const i64 padded = round_up(n, Vec<T>::lanes);
  for (i64 i = 0; i < rows; ++i)
    map_padded(x + i * row_stride, copy + i * padded, n, [](Vec<T> v) VECTILE_LAMBDA { return v; });
}

// Turns row r of n (stride apart, in place) by the angles of place(r), if the head has any.
template <class T, class Place>
VECTILE_INLINE void turn_rows(const AttentionHead<T>& h, T* rows, i64 stride, i64 n, T sign,
                              Place place) {
  if (!h.cosine) return;
  for (i64 r = 0; r < n; ++r)
    turn_row(rows + r * stride, h.cosine + place(r) * h.pairs, h.sine + place(r) * h.pairs, sign,
             h.interleaved, h.pairs, rows + r * stride);
}

constexpr i64 kTurned = 64;  // rows turned together

// f(rows, their stride, first row, number) for n rows of length d: as they are, or kTurned at a
// time as copies in `turned`, which have been turned.
template <class T, class S, class Place, class F>
VECTILE_INLINE void over_turned(const AttentionHead<T>& h, const S* x, i64 stride, i64 n, T* turned,
                                Place place, F f) {
  if (!h.cosine) return f(x, stride, i64{0}, n);
  const i64 padded = round_up(h.d, Vec<T>::lanes);
  for (i64 r = 0; r < n; r += kTurned) {
    const i64 count = smaller(kTurned, n - r);
    copy_rows(x + r * stride, stride, count, h.d, turned);
    turn_rows(h, turned, padded, count, T(1), [&](i64 i) { return place(r + i); });
    f(static_cast<const T*>(turned), padded, r, count);
  }
}

// One tile of scores: MR queries (chunked copy) against NV vectors of a panel of packed keys.
template <class T, int MR, int NV>
static inline void tile_score(const T* q, i64 capacity, const T* panel, i64 d, T* s, i64 lds) {
  constexpr i64 width = AttentionTile<T>::panel;
  tile<T, MR, NV, kDepthStride, Into::assign>(q, 1, panel, width, smaller(d, kDepth), s, lds,
                                              nullptr);
  for (i64 c = kDepth; c < d; c += kDepth)
    tile<T, MR, NV, kDepthStride, Into::add>(q + c / kDepth * capacity * kDepthStride, 1,
                                             panel + c * width, width, smaller(d - c, kDepth), s,
                                             lds, nullptr);
}

// Scores of MR queries against `width` packed keys, in whole vectors: s[i * lds + j].
template <class T, int MR>
static inline void tile_scores(const T* q, i64 capacity, const T* panels, i64 d, i64 width, T* s,
                               i64 lds) {
  using Tile = AttentionTile<T>;
  for (i64 j = 0; j < width; j += Tile::panel, panels += d * Tile::panel) {
    if (width - j > Tile::lanes)
      tile_score<T, MR, Tile::vectors>(q, capacity, panels, d, s + j, lds);
    else
      tile_score<T, MR, 1>(q, capacity, panels, d, s + j, lds);
  }
}

}  // namespace vectile::VECTILE_TIER
