// Attention of the newest tokens to a cache in blocks, split over the keys (Flash-Decoding): a
// block of threads reads a piece of one head's keys and values once for up to eight rows of its
// group, and a second kernel merges the pieces in their order. A length is known on the device
// only: pieces are even parts of what a sequence's tokens see, as many as keep the GPU busy.
#include <cmath>

#include "decode_cache.h"
#include "rows.h"

namespace vectile::cuda {
namespace {

constexpr int kRows = 8, kWarpRows = kRows / kWarps;  // rows of a block; whose scores a warp makes
constexpr int kKeys = kWarp;                          // of a step: one a lane
constexpr int kUnit = 8;   // adjacent elements that a thread takes at once
constexpr int kSlots = 3;  // steps whose places are known at a time

template <class C>
struct Decode {
  using T = Number<C>;
  Places places;
  const C *key, *value;
  const float *key_scales, *value_scales;
  bool aligned;  // rows of keys and values are whole chunks of 16 bytes
  Reals query, slopes, sinks;
  i64 query_batch, query_head, query_row, slope_batch, slope_head;
  i64 batch, left;
  int heads, lq, d, dv, pieces;
  T inner, outer;  // a score is x inner, or outer tanh(x inner) where outer is not 0, by log2(e)
  T* sums;         // (batch, heads, lq, pieces, dv), about the row's maximum
  T* statistics;   // (batch, heads, lq, pieces, 2): that maximum and the sum of exponentials
  void* out;       // (batch, heads, lq, dv)
  DType out_dtype;
  T* lse;

  __host__ __device__ int group() const { return heads / places.kv_heads; }
  // Rows of the tile in bytes, in whole groups of eight chunks.
  __host__ __device__ int pitch(int width) const {
    return width ? (width * static_cast<int>(sizeof(C)) + 127) / 128 * 128 : 128;
  }
  // The keys that some row of sequence b sees.
  __device__ int first_key(int length) const {
    const i64 first = length - lq - left;
    return first > 0 ? static_cast<int>(first) : 0;
  }
};

template <class C>
constexpr int kStages = sizeof(C) > 4 ? 1 : 2;

template <class C>
std::size_t decode_memory(const Decode<C>& p) {
  using T = Number<C>;
  const std::size_t tiles = std::size_t{kKeys} * (p.pitch(p.d) + p.pitch(p.dv)) * kStages<C>;
  const std::size_t merge = kThreads * kUnit * sizeof(T);  // takes the tiles' place in the end
  return (tiles > merge ? tiles : merge) +
         kRows * static_cast<std::size_t>((p.d + kUnit - 1) / kUnit * kUnit) * sizeof(T);
}

// A tile of keys or values: chunk c of row r lies at place c ^ (r % 8).
template <class C>
struct Tile {
  static constexpr int kChunk = kVectorBytes / sizeof(C), kPart = kChunk < kUnit ? kChunk : kUnit;
  char* data;
  int pitch;
  __device__ C* chunk(int row, int c) const {
    return reinterpret_cast<C*>(data + row * pitch + ((c & ~7) | ((c ^ row) & 7)) * kVectorBytes);
  }
  __device__ void unit(int row, int u, Number<C> (&x)[kUnit]) const {
    struct alignas(kPart * sizeof(C)) Part {
      C at[kPart];
    };
#pragma unroll
    for (int k = 0; k < kUnit; k += kPart) {
      const int column = u * kUnit + k;
      const Part part =
          *reinterpret_cast<const Part*>(chunk(row, column / kChunk) + column % kChunk);
#pragma unroll
      for (int e = 0; e < kPart; ++e) x[k + e] = number(part.at[e]);
    }
  }
  // Begins to copy the rows of x that `rows` names; zeros where it is -1.
  __device__ void load(const C* x, const i64* rows, int width, bool aligned) const {
    const int chunks = pitch / kVectorBytes, step = kThreads / chunks;
    const int thread = static_cast<int>(threadIdx.x), c = thread % chunks, column = c * kChunk;
    if (thread >= step * chunks) return;
    for (int r = thread / chunks; r < kKeys; r += step) {
      const bool inside = rows[r] >= 0 && column < width;
      const C* from = inside ? x + rows[r] * width + column : x;
      if (aligned) {
        copy_async(chunk(r, c), from, inside);
      } else {
        for (int e = 0; e < kChunk; ++e)
          chunk(r, c)[e] = inside && column + e < width ? from[e] : C{};
      }
    }
  }
};

__device__ __forceinline__ double bend(double x) { return tanh(x); }
__device__ __forceinline__ float bend(float x) {  // off by a few 2**-24 absolutely
  return 1 - __fdividef(2, 1 + exp2(x * (2 * static_cast<float>(M_LOG2E))));
}

template <class C>
__global__ void __launch_bounds__(kThreads) decode_kernel(Decode<C> p) {
  using T = Number<C>;
  __shared__ i64 rows_of[kSlots][kKeys];
  __shared__ T weights[kKeys][kRows], shrink[kRows];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int d_units = (p.d + kUnit - 1) / kUnit, units = (p.dv + kUnit - 1) / kUnit;
  const int pitch_k = p.pitch(p.d), pitch_v = p.pitch(p.dv),
            stage_size = kKeys * (pitch_k + pitch_v);
  auto* query = reinterpret_cast<T*>(dynamic_memory());
  char* tiles = dynamic_memory() + kRows * d_units * kUnit * static_cast<int>(sizeof(T));
  auto* merged = reinterpret_cast<T*>(tiles);
  const auto keys_at = [&](int stage) { return Tile<C>{tiles + stage * stage_size, pitch_k}; };
  const auto values_at = [&](int stage) {
    return Tile<C>{tiles + stage * stage_size + kKeys * pitch_k, pitch_v};
  };
  const int all = p.group() * p.lq, row_tiles = (all + kRows - 1) / kRows;
  const i64 tasks = p.batch * p.places.kv_heads * row_tiles * p.pieces;

  for (i64 task = blockIdx.x; task < tasks; task += gridDim.x) {
    const int piece = static_cast<int>(task % p.pieces);
    const int first_row = static_cast<int>(task / p.pieces % row_tiles) * kRows;
    const i64 plane = task / p.pieces / row_tiles;
    const i64 b = plane / p.places.kv_heads, kv = plane % p.places.kv_heads;
    const int rows = all - first_row < kRows ? all - first_row : kRows;
    // Of a row of the block: its head, its place, and its number among all.
    const auto head_of = [&](int r) { return kv * p.group() + (first_row + r) / p.lq; };
    const auto query_of = [&](int r) { return (first_row + r) % p.lq; };
    const auto partial_of = [&](int r) {
      return ((b * p.heads + head_of(r)) * p.lq + query_of(r)) * p.pieces + piece;
    };
    const int length = p.places.length(b), low = p.first_key(length);
    const int even = ((length - low + p.pieces - 1) / p.pieces + kKeys - 1) / kKeys * kKeys;
    const i64 from = low + i64{even} * piece;
    if (from >= length) {
      if (thread < rows) {
        p.statistics[2 * partial_of(thread)] = T(-INFINITY);
        p.statistics[2 * partial_of(thread) + 1] = T(0);
      }
      continue;
    }
    const int begin = static_cast<int>(from), end = length - begin < even ? length : begin + even;
    const int steps = (end - begin + kKeys - 1) / kKeys;

    for (int x = thread; x < kRows * d_units * kUnit; x += kThreads) {
      const int r = x / (d_units * kUnit), c = x % (d_units * kUnit);
      query[x] = r < rows && c < p.d
                     ? p.query.template at<T>(b * p.query_batch + head_of(r) * p.query_head +
                                              query_of(r) * p.query_row + c)
                     : T(0);
    }
    const auto find = [&](int step) {
      const int t = begin + step * kKeys + thread;
      if (thread < kKeys) rows_of[step % kSlots][thread] = t < end ? p.places.row(b, kv, t) : -1;
    };
    const auto load = [&](int step) {
      const int stage = step % kStages<C>;
      keys_at(stage).load(p.key, rows_of[step % kSlots], p.d, p.aligned);
      values_at(stage).load(p.value, rows_of[step % kSlots], p.dv, p.aligned);
      copy_commit();
    };
    find(0);
    find(1);
    __syncthreads();
    load(0);

    T top[kWarpRows], total[kWarpRows];
#pragma unroll
    for (int i = 0; i < kWarpRows; ++i) top[i] = T(-INFINITY), total[i] = T(0);
    // A thread sums one unit of columns of every row, over its share of each step's keys.
    const int unit = units ? thread % units : 0, share = units ? thread / units : 0;
    const int shares = units ? kThreads / units : 0;
    T sums[kRows][kUnit] = {};

    for (int step = 0; step < steps; ++step) {
      copy_wait<0>();
      __syncthreads();
      const int stage = step % kStages<C>;
      if (kStages<C> > 1 && step + 1 < steps) load(step + 1);
      find(step + 2);
      // Scores: one key a lane, kWarpRows rows a warp.
      if (warp * kWarpRows < rows) {
        T s[kWarpRows] = {};
        for (int u = 0; u < d_units; ++u) {
          T k[kUnit];
          keys_at(stage).unit(lane, u, k);
#pragma unroll
          for (int i = 0; i < kWarpRows; ++i)
#pragma unroll
            for (int e = 0; e < kUnit; ++e)
              s[i] =
                  fma(query[(warp * kWarpRows + i) * d_units * kUnit + u * kUnit + e], k[e], s[i]);
        }
        const int key = begin + step * kKeys + lane;
        const i64 place = rows_of[step % kSlots][lane];
        T value_scale(1);
        if (p.key_scales && place >= 0) {
          const T scale = p.key_scales[place];
          value_scale = p.value_scales[place];
#pragma unroll
          for (int i = 0; i < kWarpRows; ++i) s[i] *= scale;
        }
#pragma unroll
        for (int i = 0; i < kWarpRows; ++i) {
          const int r = warp * kWarpRows + i;
          const i64 at = i64{length} - p.lq + query_of(r);
          const bool seen = r < rows && key < end && key <= at && key >= at - p.left;
          T x = p.outer > 0 ? p.outer * bend(s[i] * p.inner) : s[i] * p.inner;
          if (p.slopes.data && r < rows)
            x -= p.slopes.template at<T>(b * p.slope_batch + head_of(r) * p.slope_head) *
                 T(at - key) * T(M_LOG2E);
          if (place < 0) x = T(NAN);
          if (!seen) x = T(-INFINITY);
          const T highest =
              warp_reduce(x > top[i] ? x : top[i], [](T a, T c) { return a > c ? a : c; });
          const T shift = highest == T(-INFINITY) ? T(0) : highest;
          const T less = exp2(top[i] - shift), weight = exp2(x - shift);
          top[i] = highest;
          total[i] = total[i] * less + weight;
          weights[lane][r] = seen ? weight * value_scale : T(0);
          if (lane == 0) shrink[r] = less;
        }
      }
      __syncthreads();
      if (share < shares) {
#pragma unroll
        for (int r = 0; r < kRows; ++r)
          if (r < rows)
#pragma unroll
            for (int e = 0; e < kUnit; ++e) sums[r][e] *= shrink[r];
        for (int k = share; k < kKeys; k += shares) {
          T v[kUnit];
          values_at(stage).unit(k, unit, v);
#pragma unroll
          for (int r = 0; r < kRows; ++r)
            if (r < rows)
#pragma unroll
              for (int e = 0; e < kUnit; ++e) sums[r][e] = fma(weights[k][r], v[e], sums[r][e]);
        }
      }
      if (kStages<C> == 1) {
        __syncthreads();
        if (step + 1 < steps) load(step + 1);
      }
    }

    // The shares of a row, added in their order.
    const int most = shares < kKeys ? shares : kKeys;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows) break;
      __syncthreads();
      if (share < most)
#pragma unroll
        for (int e = 0; e < kUnit; ++e) merged[(share * units + unit) * kUnit + e] = sums[r][e];
      __syncthreads();
      for (int c = thread; c < p.dv; c += kThreads) {
        T sum(0);
        for (int x = 0; x < most; ++x) sum += merged[x * units * kUnit + c];
        p.sums[partial_of(r) * p.dv + c] = sum;
      }
    }
#pragma unroll
    for (int i = 0; i < kWarpRows; ++i) {
      const T sum = warp_reduce(total[i], Sum{});
      const int r = warp * kWarpRows + i;
      if (lane == 0 && r < rows) {
        p.statistics[2 * partial_of(r)] = top[i];
        p.statistics[2 * partial_of(r) + 1] = sum;
      }
    }
    __syncthreads();
  }
}

// A warp a row.
template <class C>
__global__ void __launch_bounds__(kThreads) merge_kernel(Decode<C> p) {
  using T = Number<C>;
  const int warp = static_cast<int>(threadIdx.x) / kWarp,
            lane = static_cast<int>(threadIdx.x) % kWarp;
  for (i64 row = i64{blockIdx.x} * kWarps + warp; row < p.batch * p.heads * p.lq;
       row += i64{gridDim.x} * kWarps) {
    const T* statistics = p.statistics + row * p.pieces * 2;
    const T sink =
        p.sinks.data ? p.sinks.template at<T>(row / p.lq % p.heads) * T(M_LOG2E) : T(-INFINITY);
    T top = sink;
    for (int x = 0; x < p.pieces; ++x) top = statistics[2 * x] > top ? statistics[2 * x] : top;
    const T shift = top == T(-INFINITY) ? T(0) : top;
    T total = exp2(sink - shift);
    for (int x = 0; x < p.pieces; ++x)
      total += statistics[2 * x + 1] * exp2(statistics[2 * x] - shift);
    const T inverse = total == T(0) ? T(0) : T(1) / total;
    for (int c = lane; c < p.dv; c += kWarp) {
      T sum(0);
      for (int x = 0; x < p.pieces; ++x)
        if (statistics[2 * x + 1] != T(0))  // else it has no sums
          sum += p.sums[(row * p.pieces + x) * p.dv + c] * exp2(statistics[2 * x] - shift);
      store_real(p.out, p.out_dtype, row * p.dv + c, sum * inverse);
    }
    if (p.lse && lane == 0) p.lse[row] = (top + log2(total)) * T(M_LN2);
  }
}

}  // namespace

DecodeResult decode_attention(const TensorView& query, const ops::BlockCache& cache,
                              const ops::DecodeOptions& options) {
  constexpr auto op = "decode_attention";
  const Cache c(op, cache);
  const ops::CacheSizes& s = c.sizes;
  ops::decode_args(op, query, s, options);
  const i64 heads = query.shape[1], lq = query.shape[2], rows = s.batch * heads * lq;
  check(heads * lq <= INT_MAX, op, "query", "rows", text("at most ", INT_MAX), heads * lq);
  DecodeResult result;
  result.out = Array::empty(query.dtype, with_last(query.shape, s.dv));
  if (options.return_lse) result.lse = Array::empty(s.compute, without_last(query.shape));
  if (rows == 0) return result;
  const Array q = query.stride(3) == 1 || s.d <= 1 ? Array(query) : contiguous(query);
  TensorView slopes{};
  if (options.alibi_slopes)
    slopes = ops::broadcast_to(*options.alibi_slopes, Shape(s.batch, heads));
  Array sink_rows;
  if (options.sinks) sink_rows = contiguous(*options.sinks);
  const double scale = ops::checked_scale(op, options.scale, s.d);
  const double softcap = ops::checked_softcap(op, options.softcap);
  // A few blocks for each multiprocessor, of at least a few steps at the table's full length.
  const i64 planes = s.batch * s.kv_heads * ceil_div(heads / s.kv_heads * lq, kRows);
  const i64 wanted = ceil_div(4 * i64{multiprocessors()}, planes);
  const i64 useful = ceil_div(s.most * s.block_size, 4 * kKeys);
  const i64 pieces = wanted < useful ? wanted : useful > 0 ? useful : 1;
  dispatch_cache(s.dtype, [&](auto type) {
    using C = decltype(type);
    using T = Number<C>;
    const Array sums = Array::empty(s.compute, Shape(rows, pieces, s.dv));
    const Array statistics = Array::empty(s.compute, Shape(rows, pieces, 2));
    Decode<C> p{};
    p.places = c.places;
    p.key = cache.key.as<C>();
    p.value = cache.value.as<C>();
    p.key_scales = scales_of(cache.key_scales);
    p.value_scales = scales_of(cache.value_scales);
    const auto whole = [](const TensorView& x) {
      return reinterpret_cast<std::uintptr_t>(x.data) % kVectorBytes == 0 &&
             x.shape[3] * static_cast<i64>(sizeof(C)) % kVectorBytes == 0;
    };
    p.aligned = whole(cache.key) && whole(cache.value);
    p.query = {q.data, q.dtype};
    p.query_batch = q.stride(0), p.query_head = q.stride(1), p.query_row = q.stride(2);
    if (slopes.data) {
      p.slopes = {slopes.data, slopes.dtype};
      p.slope_batch = slopes.stride(0), p.slope_head = slopes.stride(1);
    }
    if (sink_rows.data) p.sinks = {sink_rows.data, sink_rows.dtype};
    p.batch = s.batch;
    p.left = ops::checked_reach(op, options.left, INT_MAX);
    p.heads = static_cast<int>(heads);
    p.lq = static_cast<int>(lq);
    p.d = static_cast<int>(s.d);
    p.dv = static_cast<int>(s.dv);
    p.pieces = static_cast<int>(pieces);
    p.inner = static_cast<T>(softcap > 0 ? scale / softcap : scale * M_LOG2E);
    p.outer = static_cast<T>(softcap > 0 ? softcap * M_LOG2E : 0);
    p.sums = sums.as<T>();
    p.statistics = statistics.as<T>();
    p.out = result.out.data;
    p.out_dtype = query.dtype;
    p.lse = result.lse.template as<T>();
    launch(decode_kernel<C>, {blocks_for(planes * pieces, 1), kThreads, decode_memory(p)}, p);
    launch(merge_kernel<C>, {blocks_for(rows, kWarps), kThreads}, p);
  });
  return result;
}

}  // namespace vectile::cuda
