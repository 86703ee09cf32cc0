#include "attention_rows.h"

#include "attention_terms.h"

namespace vectile::cuda::attention {
namespace {

constexpr int kWarps = kThreads / kWarp;
constexpr int kKeep = 256 / kWarp;  // elements of a row in a lane: those at lane + 32 k

template <class S>
struct Pairs {
  using T = Computed<S>;
  using Head = typename Terms<S>::Head;
  Problem<S> p;
  Terms<S> x;
  const T* lse;  // (batch, heads, lq)
  Heads<S> grad;
  const Statistics<T>* rows;  // the same, or null

  __device__ static const S* row(const Heads<S>& x, i64 b, i64 head, int i) {
    return x.data + b * x.batch + head * x.head + i * x.row;
  }
  __device__ const S* query(i64 b, i64 head, int i) const { return row(p.query, b, head, i); }
  __device__ const S* key(i64 b, i64 head, int j) const {
    return row(p.key, b, head / p.group(), j);
  }
  __device__ const S* value(i64 b, i64 head, int j) const {
    return row(p.value, b, head / p.group(), j);
  }

  __device__ static T product(const S* a, const S* b, int n) {
    T sum(0);
    for (int c = 0; c < n; ++c) sum = fma(to_float(a[c]), to_float(b[c]), sum);
    return sum;
  }
  // The weight of a pair, and the slope of its score by softcap.
  __device__ T weight(const Head& h, i64 b, i64 head, int i, int j, T& slope) const {
    if (i >= p.lq || !p.range(b, i).has(j)) return T(0);
    T score = product(query(b, head, i), key(b, head, j), p.query.width);
    slope = T(1);
    if (p.outer > 0) {
      const T bend = hyperbolic_tangent(score * p.inner);
      slope -= bend * bend;
      score = p.outer * bend;
    } else {
      score *= p.inner;
    }
    score = x.apply(h, score, i, j);
    const T l = lse[(b * p.heads + head) * p.lq + i];
    return score == T(-INFINITY) ? T(0) : exp2(score - l * T(M_LOG2E));
  }
  // What a pair contributes with to sums over values and gradients, or keys and queries.
  __device__ T after_dropout(const Head& h, T weight, int i, int j) const {
    return !x.drops ? weight : x.keeps(h, i, j) ? weight * x.keep : T(0);
  }
  __device__ T score_gradient(const Head& h, i64 b, i64 head, int i, int j) const {
    T slope;
    const T w = weight(h, b, head, i, j, slope);
    if (w == T(0)) return w;
    const bool kept = !x.drops || x.keeps(h, i, j);
    const T of_weight = kept ? product(row(grad, b, head, i), value(b, head, j), grad.width) : T(0);
    const T delta = rows[(b * p.heads + head) * p.lq + i].delta;
    return w * slope * (x.drops ? of_weight * x.keep - delta : of_weight - delta);
  }
};

enum class Made { out, query, key, value };  // what a kernel makes rows of

// result (batch, heads or kv_heads, length, width). Lanes find what 32 pairs contribute with, then
// add up elements of the rows that do.
template <Made made, class S>
__global__ void __launch_bounds__(kThreads) mend_kernel(Pairs<S> pairs, S* result, int width) {
  using T = Computed<S>;
  constexpr bool of_queries = made == Made::out || made == Made::query;
  const Problem<S>& p = pairs.p;
  const int length = of_queries ? p.lq : p.lk, heads = of_queries ? p.heads : p.kv_heads;
  const int lane = lane_index();
  for (i64 r = i64{blockIdx.x} * kWarps + warp_index(); r < p.batch * heads * length;
       r += i64{gridDim.x} * kWarps) {
    S* row = result + r * width;
    bool bad = false;
    for (int c = lane; c < width; c += kWarp) {
      const T y = to_float(row[c]);
      bad = bad || y - y != T(0);
    }
    if (!__any_sync(kAll, bad)) continue;
    const int mine = static_cast<int>(r % length);
    const i64 b = r / length / heads, of = r / length % heads;
    const Range others = of_queries ? p.range(b, mine) : Range{0, p.lq};
    T sums[kKeep] = {};
    for (int g = 0; g < (of_queries ? 1 : p.group()); ++g) {
      const i64 head = of_queries ? of : of * p.group() + g;
      const typename Pairs<S>::Head h = pairs.x.head(b, head);
      for (int from = others.begin; from < others.end; from += kWarp) {
        const int i = of_queries ? mine : from + lane, j = of_queries ? from + lane : mine;
        T share, slope;
        if constexpr (made == Made::query || made == Made::key)
          share = pairs.score_gradient(h, b, head, i, j) * p.scale;
        else
          share = pairs.after_dropout(h, pairs.weight(h, b, head, i, j, slope), i, j);
        for (int x = 0; x < kWarp; ++x) {
          const T factor = __shfl_sync(kAll, share, x);
          if (factor == T(0)) continue;
          const int other = from + x;
          const S* add = made == Made::out     ? pairs.value(b, head, other)
                         : made == Made::query ? pairs.key(b, head, other)
                         : made == Made::key   ? pairs.query(b, head, other)
                                               : pairs.row(pairs.grad, b, head, other);
#pragma unroll
          for (int k = 0; k < kKeep; ++k)
            if (const int c = lane + k * kWarp; c < width)
              sums[k] = fma(factor, to_float(add[c]), sums[k]);
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kKeep; ++k)
      if (const int c = lane + k * kWarp; c < width) row[c] = from_float<S>(sums[k]);
  }
}

template <Made made, class S>
void mend(const Pairs<S>& pairs, const Array& result, i64 rows) {
  if (result.elements() > 0)
    launch(mend_kernel<made, S>, {blocks_for(rows, kWarps), kThreads}, pairs, result.as<S>(),
           static_cast<int>(result.shape[-1]));
}

// weights (batch, heads, lq, lk), or null; top_weights and top_keys (batch, heads, lq, top).
template <class S>
__global__ void __launch_bounds__(kThreads)
    weights_kernel(Pairs<S> pairs, S* weights, Computed<S>* top_weights, i64* top_keys, i64 top) {
  using T = Computed<S>;
  const Problem<S>& p = pairs.p;
  const int lane = lane_index();
  for (i64 r = i64{blockIdx.x} * kWarps + warp_index(); r < p.batch * p.heads * p.lq;
       r += i64{gridDim.x} * kWarps) {
    const int i = static_cast<int>(r % p.lq);
    const i64 b = r / p.lq / p.heads, head = r / p.lq % p.heads;
    const typename Pairs<S>::Head h = pairs.x.head(b, head);
    T* best = top_weights + r * top;
    i64* best_key = top_keys + r * top;
    for (i64 x = lane; x < top; x += kWarp) best[x] = T(0), best_key[x] = -1;
    __syncwarp();
    for (int from = 0; from < p.lk; from += kWarp) {
      const int j = from + lane;
      T slope;
      const T mine = pairs.weight(h, b, head, i, j, slope);
      if (weights && j < p.lk) weights[r * p.lk + j] = from_float<S>(mine);
      for (int x = 0; top && x < kWarp; ++x) {
        const T weight = __shfl_sync(kAll, mine, x);
        // Insertion; of equal weights the earlier key stands first.
        if (lane != 0 || !(weight > best[top - 1])) continue;
        i64 at = top - 1;
        for (; at > 0 && weight > best[at - 1]; --at)
          best[at] = best[at - 1], best_key[at] = best_key[at - 1];
        best[at] = weight, best_key[at] = from + x;
      }
    }
  }
}

// sums (batch, heads, lk) of weights over queries.
template <class S>
__global__ void __launch_bounds__(kThreads) column_sums_kernel(Pairs<S> pairs, Computed<S>* sums) {
  using T = Computed<S>;
  const Problem<S>& p = pairs.p;
  for (i64 r = i64{blockIdx.x} * kWarps + warp_index(); r < p.batch * p.heads * p.lk;
       r += i64{gridDim.x} * kWarps) {
    const i64 b = r / p.lk / p.heads, head = r / p.lk % p.heads;
    const typename Pairs<S>::Head h = pairs.x.head(b, head);
    T sum(0), slope;
    for (int i = lane_index(); i < p.lq; i += kWarp)
      sum += pairs.weight(h, b, head, i, static_cast<int>(r % p.lk), slope);
    sum = warp_reduce(sum, Sum{});
    if (lane_index() == 0) sums[r] = sum;
  }
}

}  // namespace

void mend_rows(const Arguments& a, const Array& lse, const Array& out) {
  dispatch_floating(a.dtype, [&](auto s) {
    using S = decltype(s);
    const Pairs<S> pairs{
        a.problem<S>(), a.extras.terms<S>(a.sizes), lse.as<Computed<S>>(), {}, nullptr};
    mend<Made::out>(pairs, out, a.sizes.heads.elements() * a.sizes.lq);
  });
}

void mend_gradients(const Arguments& a, const Array& grad, const Array& lse,
                    const Array& statistics, const AttentionGradients& gradients) {
  dispatch_floating(a.dtype, [&](auto s) {
    using S = decltype(s);
    const Pairs<S> pairs{a.problem<S>(), a.extras.terms<S>(a.sizes), lse.as<Computed<S>>(),
                         heads_of<S>(grad), statistics.as<Statistics<Computed<S>>>()};
    const i64 keys = a.sizes.batch.elements() * a.sizes.kv_heads * a.sizes.lk;
    mend<Made::query>(pairs, gradients.dq, a.sizes.heads.elements() * a.sizes.lq);
    mend<Made::key>(pairs, gradients.dk, keys);
    mend<Made::value>(pairs, gradients.dv, keys);
  });
}

void take_weights(const Arguments& a, const ops::AttentionOptions& o, const Array& lse,
                  AttentionResult& result) {
  const i64 lk = a.sizes.lk, planes = a.sizes.heads.elements(), rows = planes * a.sizes.lq;
  const i64 top = o.return_top_k;
  const DType compute = compute_dtype(a.dtype);
  const Shape heads_and_rows = lse.shape;
  const auto rows_of = [&](DType dtype, i64 n) {
    Shape shape = heads_and_rows;
    shape.push(n);
    return Array::empty(dtype, shape);
  };
  if (o.return_weights) result.weights = rows_of(a.dtype, lk);
  if (o.return_column_sums) result.column_sums = Array::zeros(compute, with_last(lse.shape, lk));
  Array top_weights;
  if (top) top_weights = rows_of(compute, top), result.top_keys = rows_of(DType::i64, top);
  dispatch_floating(a.dtype, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    const Pairs<S> pairs{a.problem<S>(), a.extras.terms<S>(a.sizes), lse.as<T>(), {}, nullptr};
    if (rows && (o.return_weights || top))
      launch(weights_kernel<S>, {blocks_for(rows, kWarps), kThreads}, pairs, result.weights.as<S>(),
             top_weights.as<T>(), result.top_keys.as<i64>(), top);
    if (rows && o.return_column_sums && lk)
      launch(column_sums_kernel<S>, {blocks_for(planes * lk, kWarps), kThreads}, pairs,
             result.column_sums.as<T>());
  });
  result.top_weights = std::move(top_weights);
  if (top && a.dtype != compute) result.top_weights = converted(result.top_weights, a.dtype);
}

}  // namespace vectile::cuda::attention
