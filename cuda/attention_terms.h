// The kernels' side of attention_extras.h.
#pragma once

#include "attention_problem.h"
#include "philox.h"

namespace vectile::cuda::attention {

// No extras.
struct NoTerms {
  static constexpr bool any = false;
  struct Head {};
  __device__ static Head head(i64, i64) { return {}; }
};

template <class S>
struct Terms {
  static constexpr bool any = true;
  using T = Computed<S>;
  // Null or false where an option is not given.
  const void* mask;
  bool mask_is_bool;
  i64 mask_batch, mask_head, mask_row, mask_key;
  const T* slopes;
  i64 slope_batch, slope_head;
  const int* places;
  const int* documents;
  i64 document_batch;
  const unsigned char* blocks;
  i64 block_batch, block_head, block_row, block_column;
  int block_rows, block_columns;
  const T* sinks;
  bool drops;
  unsigned threshold;  // random words below it drop their weights
  T keep;              // what is kept is multiplied by
  std::uint64_t seed;
  int heads, lq, lk;

  // Of one head: where its part of each array begins.
  struct Head {
    i64 mask, documents, blocks;
    T slope;  // times -log2(e)
    std::uint64_t weight;
  };
  __device__ Head head(i64 b, i64 h) const {
    const T slope = slopes ? slopes[b * slope_batch + h * slope_head] : T(0);
    return {b * mask_batch + h * mask_head, b * document_batch, b * block_batch + h * block_head,
            slope * -static_cast<T>(M_LOG2E),
            (static_cast<std::uint64_t>(b) * heads + h) * lq * lk};
  }

  __device__ bool same_document(const Head& h, int query, int key) const {
    const int* of = documents + h.documents;
    return of[key] == of[query + lk - lq];
  }
  __device__ bool in_block(const Head& h, int query, int key) const {
    return blocks[h.blocks + query / block_rows * block_row + key / block_columns * block_column];
  }
  __device__ T with_slope(const Head& h, T score, int query, int key) const {
    const int away = key - places[query];
    return fma(static_cast<T>(away < 0 ? -away : away), h.slope, score);
  }
  __device__ T with_mask(const Head& h, T score, int query, int key) const {
    const i64 at = h.mask + query * mask_row + key * mask_key;
    if (mask_is_bool) return static_cast<const unsigned char*>(mask)[at] ? score : T(-INFINITY);
    const T added = to_float(static_cast<const S*>(mask)[at]);
    return added == T(-INFINITY) ? added : fma(added, static_cast<T>(M_LOG2E), score);
  }
  // All of them for one score in base 2.
  __device__ T apply(const Head& h, T score, int query, int key) const {
    if (documents && !same_document(h, query, key)) return T(-INFINITY);
    if (blocks && !in_block(h, query, key)) return T(-INFINITY);
    if (h.slope != T(0)) score = with_slope(h, score, query, key);
    return mask ? with_mask(h, score, query, key) : score;
  }

  // A weight's number among those of dropout, and whether it is kept.
  __device__ std::uint64_t number(const Head& h, int query, int key) const {
    return h.weight + static_cast<std::uint64_t>(query) * lk + key;
  }
  __device__ bool keeps(const Head& h, int query, int key) const {
    const std::uint64_t at = number(h, query, key);
    return word(philox(counter_of(at), seed), at / kCounters % 4) >= threshold;
  }

  // Whether some block of the mask has a query of [query, query_end) and a key of [key, key_end),
  // none of them empty; by a warp. Where there are many, the tile is not worth looking at all.
  __device__ bool live(const Head& h, int query, int query_end, int key, int key_end) const {
    if (!blocks) return true;
    const int row = query / block_rows, column = key / block_columns;
    const int down = (query_end - 1) / block_rows - row + 1;
    const int across = (key_end - 1) / block_columns - column + 1;
    if (down * across > 4 * kWarp) return true;
    bool seen = false;
    for (int x = lane_index(); x < down * across; x += kWarp)
      seen =
          seen ||
          blocks[h.blocks + (row + x / across) * block_row + (column + x % across) * block_column];
    return __any_sync(kAll, seen);
  }

  __device__ static std::uint64_t counter_of(std::uint64_t number) {
    return number / kPhiloxBlock * kCounters + number % kCounters;
  }
  __device__ static unsigned word(uint4 r, unsigned w) {
    return w < 2 ? (w == 0 ? r.x : r.y) : w == 2 ? r.z : r.w;
  }
};

// f(i, j) for a thread's elements of scores.
template <class E, class F>
__device__ __forceinline__ void each_score(F&& f) {
#pragma unroll
  for (int i = 0; i < E::kThreadRows; ++i)
#pragma unroll
    for (int j = 0; j < E::Scores::kCount; ++j) f(i, j);
}

// Applies the terms to scores in base 2, those of pairs that do not count -inf already; query(i, j)
// and key(i, j) are the pair of an element.
template <class E, class S, class Query, class Key>
__device__ __forceinline__ void apply_terms(typename E::Scores& s, const Terms<S>& x,
                                            const typename Terms<S>::Head& h, Query&& query,
                                            Key&& key) {
  using T = Computed<S>;
  const auto pass = [&](auto f) {
    each_score<E>([&](int i, int j) {
      if (s.at(i, j) != T(-INFINITY)) s.at(i, j) = f(s.at(i, j), query(i, j), key(i, j));
    });
  };
  if (x.documents)
    pass([&](T v, int i, int j) { return x.same_document(h, i, j) ? v : T(-INFINITY); });
  if (x.blocks) pass([&](T v, int i, int j) { return x.in_block(h, i, j) ? v : T(-INFINITY); });
  if (h.slope != T(0)) pass([&](T v, int i, int j) { return x.with_slope(h, v, i, j); });
  if (x.mask) pass([&](T v, int i, int j) { return x.with_mask(h, v, i, j); });
}

// f(w, kept) for the weights of a query and keys 0, 16, ..., 16 (N - 1) after `key`: they take
// words of one counter as far as they are in one block of them.
template <int N, class S, class F>
__device__ __forceinline__ void every_sixteenth(const Terms<S>& x, const typename Terms<S>::Head& h,
                                                int query, int key, F&& f) {
  const std::uint64_t at = x.number(h, query, key), counter = x.counter_of(at);
  const auto first = static_cast<unsigned>(at / kCounters % 4);
  const uint4 a = philox(counter, x.seed);
  const uint4 b = first + N > 4 ? philox(counter + kCounters, x.seed) : a;
#pragma unroll
  for (unsigned w = 0; w < N; ++w)
    f(static_cast<int>(w), x.word(first + w < 4 ? a : b, (first + w) % 4) >= x.threshold);
}

// Which weights dropout keeps of a tile that begins with that query and key: bit i kCount + j is
// that of element (i, j) of scores, rows of which are queries.
template <class E, class S>
__device__ __forceinline__ std::uint64_t kept_weights(const Terms<S>& x,
                                                      const typename Terms<S>::Head& h, int query,
                                                      int key) {
  constexpr int count = E::Scores::kCount, step = count * kCounters / E::kColumns;
  static_assert(E::kThreadRows * count <= 64);
  std::uint64_t bits = 0;
#pragma unroll 1
  for (int i = 0; i < E::kThreadRows; ++i)
#pragma unroll 1
    for (int j = 0; j < step; ++j)
      every_sixteenth<count / step>(
          x, h, query + E::row(i), key + E::column(j), [&](int w, bool kept) {
            bits |= static_cast<std::uint64_t>(kept) << (i * count + j + w * step);
          });
  return bits;
}

// The same where columns are queries: first, by a block, bit r of columns[c] for key r of query c;
// then, after a barrier, the bits of a thread.
template <class E, class S>
__device__ __forceinline__ void keep_columns(const Terms<S>& x, const typename Terms<S>::Head& h,
                                             int query, int key, std::uint64_t* columns) {
  constexpr int share = kThreads / E::kColumns;  // lanes of a column
  static_assert(E::kRows <= 64 && kCounters % share == 0);
  const int c = static_cast<int>(threadIdx.x) / share;
  std::uint64_t bits = 0;
#pragma unroll 1
  for (int r = lane_index() % share; r < kCounters; r += share)
    every_sixteenth<E::kRows / kCounters>(x, h, query + c, key + r, [&](int w, bool kept) {
      bits |= static_cast<std::uint64_t>(kept) << (r + w * kCounters);
    });
#pragma unroll
  for (int mask = share / 2; mask; mask /= 2) bits |= __shfl_xor_sync(kAll, bits, mask);
  if (lane_index() % share == 0) columns[c] = bits;
}
template <class E>
__device__ __forceinline__ std::uint64_t kept_weights(const std::uint64_t* columns) {
  std::uint64_t bits = 0;
  each_score<E>([&](int i, int j) {
    bits |= (columns[E::column(j)] >> E::row(i) & 1) << (i * E::Scores::kCount + j);
  });
  return bits;
}

// Dropout of weights or their gradients.
template <class E, class S>
__device__ __forceinline__ void drop_weights(typename E::Scores& s, const Terms<S>& x,
                                             std::uint64_t kept) {
  each_score<E>([&](int i, int j) {
    const bool keeps = kept >> (i * E::Scores::kCount + j) & 1;
    s.at(i, j) = keeps ? s.at(i, j) * x.keep : Computed<S>(0);
  });
}

template <class S>
Terms<S> Extras::terms(const ops::AttentionSizes& s) const {
  using T = Computed<S>;
  Terms<S> t{};
  t.mask = mask.view.data;
  t.mask_is_bool = mask.view.dtype == DType::boolean;
  t.mask_batch = mask.batch, t.mask_head = mask.head;
  t.mask_row = mask.stride(-2), t.mask_key = mask.stride(-1);
  t.slopes = slopes.view.as<T>();
  t.slope_batch = slopes.batch, t.slope_head = slopes.head;
  t.places = places.as<int>();
  t.documents = documents.as<int>();
  t.document_batch = documents.data && documents.shape[0] > 1 ? s.lk : 0;
  t.blocks = blocks.view.as<unsigned char>();
  t.block_batch = blocks.batch, t.block_head = blocks.head;
  t.block_row = blocks.stride(-2), t.block_column = blocks.stride(-1);
  t.block_rows = static_cast<int>(block.rows);
  t.block_columns = static_cast<int>(block.columns);
  t.sinks = sinks.as<T>();
  t.drops = dropout_p > 0;
  t.threshold = static_cast<unsigned>(dropout_p < 1 ? static_cast<std::uint64_t>(dropout_p * 0x1p32)
                                                    : std::uint64_t{0xffffffff});
  t.keep = static_cast<T>(dropout_p < 1 ? 1 / (1 - dropout_p) : 0);
  t.seed = seed;
  t.heads = static_cast<int>(s.query_heads);
  t.lq = static_cast<int>(s.lq);
  t.lk = static_cast<int>(s.lk);
  return t;
}

}  // namespace vectile::cuda::attention
