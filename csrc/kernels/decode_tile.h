// Products of few rows with keys and values where a cache holds them: each is read once, in memory
// order, and widened in registers.
#pragma once

#include "kernels/attention_scores.h"
#include "kernels/decode_types.h"
#include "simd/sums.h"

namespace vectile::VECTILE_TIER {

constexpr int kAccumulators = 8;                 // of a tile, in registers
constexpr int kTileRows = 4;                     // rows of a tile, at most
constexpr i64 kDecodeStride = kDecodeKeys + 16;  // of rows of scores: whole tiles fit
constexpr int kScoreSums = Vec<float>::lanes > kAccumulators ? Vec<float>::lanes : kAccumulators;

// Keys of one block, adjacent in memory: columns [column, column + count) of the scores.
template <class S>
struct DecodePiece {
  const S *key, *value;
  const S* next;  // the key of the first of them in the next step, if it is to be asked for
  const float *key_scale, *value_scale;
  i64 column, count;
};

// All lanes of V from the cache, or the first `count`.
template <class V, class S, class... N>
VECTILE_INLINE V load_cached(const S* p, N... count) {
  if constexpr (std::is_same_v<S, std::int8_t>)
    return V::load(p, count...);
  else
    return load_as<V>(p, count...);
}

// s[i * kDecodeStride + j] = the sum of the lanes of acc[i * columns + j], for MR rows
template <int MR, class V, class T>
VECTILE_INLINE void store_sums(const V* acc, T* s) {
  constexpr int columns = kScoreSums / MR, lanes = V::lanes;
  T sums[kScoreSums];
  T* to = MR == 1 ? s : sums;
  unroll<kScoreSums / lanes>([&](auto g) VECTILE_LAMBDA {
    if constexpr (std::is_same_v<V, Vec<T>>)
      lane_sums(acc + g * lanes).store(to + g * lanes);
    else
      to_float(lane_sums(acc + g * lanes)).store(to + g * lanes);
  });
  if constexpr (MR == 1) return;
  unroll<MR>([&](auto i) VECTILE_LAMBDA {
    std::memcpy(s + i * kDecodeStride, sums + i * columns, sizeof(T) * columns);
  });
}

// s[i * kDecodeStride + j] = q_i . k_j for MR rows of q, padded with zeros, and up to
// kScoreSums / MR keys; row i is written that far.
template <class T, class S, int MR, bool full>
static void score_tile(const T* q, i64 q_row, const S* k, i64 d, i64 keys, T* s) {
  using V = Vec<T>;
  constexpr int columns = kScoreSums / MR;
  const S* key[columns];  // past the last the last again
  unroll<columns>([&](auto j)
                      VECTILE_LAMBDA { key[j] = k + (full ? j : smaller(j, keys - 1)) * d; });
  V acc[kScoreSums];
  const auto step = [&](i64 x, auto... count) VECTILE_LAMBDA {
    V a[MR];
    unroll<MR>([&](auto i) VECTILE_LAMBDA {
      a[i] = V::load(q + i * q_row + x);
      keep(a[i]);
    });
    unroll<columns>([&](auto j) VECTILE_LAMBDA {
      V b = load_cached<V>(key[j] + x, count...);
      if constexpr (MR > 1) keep(b);
      unroll<MR>([&](auto i) VECTILE_LAMBDA {
        acc[i * columns + j] = multiply_add(a[i], b, acc[i * columns + j]);
      });
    });
  };
  i64 x = 0;
  for (; x + V::lanes <= d; x += V::lanes) step(x);
  if (x < d) step(x, static_cast<int>(d - x));
  store_sums<MR>(acc, s);
}

// The same on words, in units of the rows' scales (decode_bytes.h).
template <class T, class S, int MR, bool full>
static void score_tile(const std::int16_t* q, i64 q_row, const S* k, i64 d, i64 keys, T* s);

// Asks for n adjacent elements.
template <class S>
VECTILE_INLINE void prefetch_row(const S* p, i64 n) {
  constexpr i64 line = 64 / sizeof(S);
  for (i64 i = 0; i < n; i += line) __builtin_prefetch(p + i);
}

// Asks for the values of each tile's keys meanwhile, if `ahead`.
template <class T, class S, int MR, class Q>
static void score_rows(const Q* q, i64 q_row, const DecodePiece<S>& piece, i64 d, i64 dv,
                       bool ahead, T* s) {
  constexpr i64 columns = kScoreSums / MR;
  s += piece.column;
  i64 j = 0;
  for (; j + columns <= piece.count; j += columns) {
    if (ahead) prefetch_row(piece.value + j * dv, columns * dv);
    score_tile<T, S, MR, true>(q, q_row, piece.key + j * d, d, columns, s + j);
  }
  if (j < piece.count)
    score_tile<T, S, MR, false>(q, q_row, piece.key + j * d, d, piece.count - j, s + j);
}

// NV vectors of MR rows of acc = factor acc + p V; the last one has `count` columns, if given.
template <class T, class S, int MR, int NV, class... N>
static void value_tile(const T* p, const DecodePiece<S>* pieces, int n, i64 first, i64 dv, T* acc,
                       i64 acc_row, const T* factor, N... count) {
  using V = Vec<T>;
  V sum[MR][NV];
  unroll<MR>([&](auto i) VECTILE_LAMBDA {
    unroll<NV>([&](auto j) VECTILE_LAMBDA {
      sum[i][j] = V::load(acc + i * acc_row + j * V::lanes) * V(factor[i]);
    });
  });
  for (int x = 0; x < n; ++x) {
    const S* value = pieces[x].value + first;
    const bool ahead = pieces[x].next;
    const S* next = ahead ? pieces[x].next + first * pieces[x].count : value;  // these columns'
    const T* weight = p + pieces[x].column;
    for (i64 key = 0; key < pieces[x].count; ++key, value += dv, next += NV * V::lanes) {
      if (ahead) prefetch_row(next, NV * V::lanes);
      unroll<NV>([&](auto j) VECTILE_LAMBDA {
        V v = load_cached<V>(value + j * V::lanes, count...);
        if constexpr (MR > 1) keep(v);
        unroll<MR>([&](auto i) VECTILE_LAMBDA {
          sum[i][j] = multiply_add(V(weight[i * kDecodeStride + key]), v, sum[i][j]);
        });
      });
    }
  }
  unroll<MR>([&](auto i) VECTILE_LAMBDA {
    unroll<NV>([&](auto j) VECTILE_LAMBDA { sum[i][j].store(acc + i * acc_row + j * V::lanes); });
  });
}

// Columns [first, dv) of MR rows; first is whole vectors.
template <class T, class S, int MR>
static void value_rows(const T* p, const DecodePiece<S>* pieces, int n, i64 first, i64 dv, T* acc,
                       i64 acc_row, const T* factor) {
  constexpr i64 lanes = Vec<T>::lanes;
  row_groups<kAccumulators / MR>(first / lanes, dv / lanes, [&](auto nv, i64 v) VECTILE_LAMBDA {
    value_tile<T, S, MR, nv>(p, pieces, n, v * lanes, dv, acc + v * lanes, acc_row, factor);
  });
  if (const i64 whole = dv / lanes * lanes; whole < dv)
    value_tile<T, S, MR, 1>(p, pieces, n, whole, dv, acc + whole, acc_row, factor,
                            static_cast<int>(dv - whole));
}

}  // namespace vectile::VECTILE_TIER
