// Optimiser steps, PyTorch's formulas, on all arrays of a call in few launches: a table of the
// arrays goes with the kernel's arguments, and each block finds its chunk of one of them.
// Coefficients arrive in double and are rounded once, so 1 - beta keeps its digits.
#include "optimizer.h"

#include <utility>
#include <vector>

#include "rows.h"

namespace vectile::cuda {
namespace {

using ops::ListArgument;
using ops::TensorList;

constexpr int kThreads = 256;
constexpr int kTotal = 1024;          // threads of the block that sums over chunks
constexpr int kVectors = 4;           // of a thread in a chunk
constexpr int kTableBytes = 4 << 10;  // what a kernel's arguments may take, other ones included

template <class S>
constexpr i64 kChunk = i64{kThreads} * kVectors * Vector<S>::size;

// Arrays of `lists` lists, row-major, none empty; those of one index are of one size.
template <int lists>
struct Table {
  static constexpr int most = (kTableBytes - 256) / (lists * 8 + 8 + 8 + 1);
  void* data[most][lists];
  i64 size[most], end[most];  // elements; chunks of this one and those before it
  unsigned char wide[most];   // bit l: float32 where the first list is of a half type
  int arrays;
};

// The array that holds a chunk.
template <int lists>
__device__ int find(const Table<lists>& t, i64 chunk) {
  int low = 0, high = t.arrays - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (chunk < t.end[middle])
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

// f(array, first element, elements up to the array's end) for the vectors of a chunk that are the
// thread's.
template <class S, int lists, class F>
__device__ void each_vector(const Table<lists>& t, i64 chunk, F&& f) {
  const int i = find(t, chunk);
  const i64 begin = (i ? chunk - t.end[i - 1] : chunk) * kChunk<S>, size = t.size[i];
  for (int k = 0; k < kVectors; ++k) {
    const i64 at = begin + (k * kThreads + static_cast<int>(threadIdx.x)) * Vector<S>::size;
    if (at < size) f(i, at, size - at);
  }
}

// step(x) for every index, x its element of each list; what the step names is written back.
template <class S, class Step>
__global__ void __launch_bounds__(kThreads, 3)
    step_kernel(const __grid_constant__ Table<Step::lists> t, const Step step) {
  using T = Computed<S>;
  constexpr int W = Vector<S>::size, lists = Step::lists;
  if (step.idle()) return;
  for (i64 chunk = blockIdx.x; chunk < t.end[t.arrays - 1]; chunk += gridDim.x)
    each_vector<S>(t, chunk, [&](int i, i64 at, i64 n) {
      // all are on their way before the first is widened
      union Fetched {
        Packed<T, W> wide;
        Packed<S, W> narrow;
      } fetched[lists];
#pragma unroll
      for (int l = 0; l < lists; ++l) {
        if (widens<S> && t.wide[i] >> l & 1)
          fetched[l].wide = fetch<W>(static_cast<const T*>(t.data[i][l]) + at, 0, n);
        else
          fetched[l].narrow = fetch<W>(static_cast<const S*>(t.data[i][l]) + at, 0, n);
      }
      T x[lists][W];
#pragma unroll
      for (int l = 0; l < lists; ++l) {
        if (widens<S> && t.wide[i] >> l & 1)
          fetched[l].wide.widen(x[l]);
        else
          fetched[l].narrow.widen(x[l]);
      }
#pragma unroll
      for (int j = 0; j < W; ++j) {
        T one[lists];
#pragma unroll
        for (int l = 0; l < lists; ++l) one[l] = x[l][j];
        step(one);
#pragma unroll
        for (int l = 0; l < lists; ++l) x[l][j] = one[l];
      }
#pragma unroll
      for (int l = 0; l < lists; ++l) {
        if (!(Step::written >> l & 1)) continue;
        if (widens<S> && t.wide[i] >> l & 1)
          store_adjacent(x[l], static_cast<T*>(t.data[i][l]) + at, n);
        else
          store_adjacent(x[l], static_cast<S*>(t.data[i][l]) + at, n);
      }
    });
}

struct Always {
  __device__ bool idle() const { return false; }
};

// p -= lr (g + l2 p)
template <class T>
struct Sgd : Always {
  static constexpr int lists = 2, written = 0b01;
  T rate, l2;
  __device__ void operator()(T (&x)[2]) const { x[0] = fma(-rate, fma(l2, x[0], x[1]), x[0]); }
};

// b = momentum b + fresh g;  p -= lr (ahead b + now g)
template <class T>
struct SgdMomentum : Always {
  static constexpr int lists = 3, written = 0b101;
  T rate, l2, momentum, fresh, ahead, now;
  __device__ void operator()(T (&x)[3]) const {
    const T g = fma(l2, x[0], x[1]);
    x[2] = fma(momentum, x[2], fresh * g);
    x[0] = fma(-rate, fma(ahead, x[2], now * g), x[0]);
  }
};

// m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g²;  p -= size m / (unbias sqrt v + eps)
template <class T>
struct Adam : Always {
  static constexpr int lists = 4, written = 0b1101;
  T fresh1, old2, fresh2, decay, l2, size, unbias, eps;
  __device__ void operator()(T (&x)[4]) const {
    const T w = x[0] * decay, g = fma(l2, w, x[1]);
    x[2] = fma(fresh1, g - x[2], x[2]);
    x[3] = fma(old2, x[3], fresh2 * g * g);
    x[0] = fma(-size, x[2] / fma(sqrt(x[3]), unbias, eps), w);
  }
};

// v = alpha v + (1 - alpha) g²;  u = g / (sqrt v + eps);  p -= lr u, or b = momentum b + u and p -=
// lr b
template <class T, bool buffered>
struct Rmsprop : Always {
  static constexpr int lists = buffered ? 4 : 3, written = buffered ? 0b1101 : 0b101;
  T rate, old, fresh, eps, l2, momentum;
  __device__ void operator()(T (&x)[lists]) const {
    const T g = fma(l2, x[0], x[1]);
    x[2] = fma(old, x[2], fresh * g * g);
    T u = g / (sqrt(x[2]) + eps);
    if constexpr (buffered) u = x[3] = fma(momentum, x[3], u);
    x[0] = fma(-rate, u, x[0]);
  }
};

template <class T>
struct Scale : Always {
  static constexpr int lists = 1, written = 0b1;
  T factor;
  __device__ void operator()(T (&x)[1]) const { x[0] *= factor; }
};

// By a factor on the device; left alone where it is 1.
template <class T>
struct ScaleBy {
  static constexpr int lists = 1, written = 0b1;
  const T* factor;
  __device__ bool idle() const { return *factor == T(1); }
  __device__ void operator()(T (&x)[1]) const { x[0] *= *factor; }
};

// The sum of squares of each chunk.
template <class S>
__global__ void __launch_bounds__(kThreads)
    squares_kernel(const __grid_constant__ Table<1> t, double* sums) {
  constexpr int W = Vector<S>::size;
  __shared__ double scratch[kThreads / kWarp];
  for (i64 chunk = blockIdx.x; chunk < t.end[t.arrays - 1]; chunk += gridDim.x) {
    double sum = 0;
    each_vector<S>(t, chunk, [&](int i, i64 at, i64 n) {
      Computed<S> x[W];
      load_adjacent(x, static_cast<const S*>(t.data[i][0]) + at, n);
#pragma unroll
      for (int j = 0; j < W; ++j)
        sum = fma(static_cast<double>(x[j]), static_cast<double>(x[j]), sum);
    });
    sum = block_reduce<kThreads>(sum, Sum{}, scratch);
    if (threadIdx.x == 0) sums[chunk] = sum;
  }
}

// The norm, and what arrays of that norm are multiplied by.
template <class T>
__global__ void __launch_bounds__(kTotal)
    norm_kernel(const double* sums, i64 n, double max_norm, T* norm, T* factor) {
  __shared__ double scratch[kTotal / kWarp];
  double sum = 0;
  for (i64 i = threadIdx.x; i < n; i += kTotal) sum += sums[i];
  sum = sqrt(block_reduce<kTotal>(sum, Sum{}, scratch));
  if (threadIdx.x != 0) return;
  *norm = static_cast<T>(sum);
  const double f = max_norm / (sum + 1e-6);
  *factor = f >= 1 ? T(1) : static_cast<T>(f);
}

// The arrays of a call as kernels take them: row-major, those that are not as copies.
template <int lists>
class Arrays {
 public:
  explicit Arrays(const ListArgument (&arguments)[lists]) {
    const TensorList& first = *arguments[0].list;
    views_.resize(first.size());
    for (std::size_t i = 0; i < first.size(); ++i)
      for (int l = 0; l < lists; ++l) {
        const TensorView& x = (*arguments[l].list)[i];
        views_[i][l] = x;
        if (x.contiguous()) continue;
        copies_.emplace_back(contiguous(x), arguments[l].written ? &x : nullptr);
        views_[i][l] = copies_.back().first;
      }
  }

  // f(table, its chunks) for as many tables as hold all arrays.
  template <class S, class F>
  void each_table(F&& f) const {
    Table<lists> t;
    t.arrays = 0;
    const auto flush = [&] {
      if (t.arrays) f(t, t.end[t.arrays - 1]);
      t.arrays = 0;
    };
    for (const auto& views : views_) {
      const i64 n = views[0].elements(), chunks = ceil_div(n, kChunk<S>);
      if (n == 0) continue;
      if (t.arrays == t.most) flush();
      const int i = t.arrays++;
      t.size[i] = n;
      t.end[i] = (i ? t.end[i - 1] : 0) + chunks;
      t.wide[i] = 0;
      for (int l = 0; l < lists; ++l) {
        t.data[i][l] = views[l].data;
        t.wide[i] |= static_cast<unsigned char>((views[l].dtype != views[0].dtype) << l);
      }
    }
    flush();
  }

  template <class S, class Step>
  void run(const Step& step) const {
    each_table<S>([&](const Table<lists>& t, i64 chunks) {
      launch(step_kernel<S, Step>, {blocks_for(chunks, 1), kThreads}, t, step);
    });
    for (const auto& [copy, original] : copies_)
      if (original) copy_strided(copy, *original);
  }

 private:
  struct Views {
    TensorView at[lists];
    TensorView& operator[](int l) { return at[l]; }
    const TensorView& operator[](int l) const { return at[l]; }
  };
  std::vector<Views> views_;
  std::vector<std::pair<Array, const TensorView*>> copies_;  // and where they go back
};

// make(T{}): the step in T.
template <int lists, class F>
void run(const char* op, const ListArgument (&arguments)[lists], F&& make) {
  ops::check_lists(op, arguments, lists);
  const TensorList& first = *arguments[0].list;
  if (first.empty()) return;
  dispatch_floating(first[0].dtype, [&](auto s) {
    using S = decltype(s);
    Arrays<lists>(arguments).template run<S>(make(Computed<S>{}));
  });
}

}  // namespace

void sgd(const TensorList& params, const TensorList& grads, const TensorList* momentum_buffers,
         const ops::SgdOptions& o) {
  constexpr const char* op = "sgd_";
  ops::sgd_args(op, momentum_buffers, o);
  if (o.momentum == 0)
    return run(op, {{"params", &params}, {"grads", &grads, false}}, [&](auto t) {
      using T = decltype(t);
      return Sgd<T>{{}, static_cast<T>(o.lr), static_cast<T>(o.weight_decay)};
    });
  run(op,
      {{"params", &params},
       {"grads", &grads, false},
       {"momentum_buffers", momentum_buffers, true, true}},
      [&](auto t) {
        using T = decltype(t);
        const auto momentum = static_cast<T>(o.momentum);
        return SgdMomentum<T>{{},
                              static_cast<T>(o.lr),
                              static_cast<T>(o.weight_decay),
                              momentum,
                              static_cast<T>(1 - o.dampening),
                              o.nesterov ? momentum : T(1),
                              T(o.nesterov)};
      });
}

void adam(const char* op, const TensorList& params, const TensorList& grads,
          const TensorList& exp_avgs, const TensorList& exp_avg_sqs, const ops::AdamOptions& o) {
  ops::adam_args(op, o);
  const ops::AdamFactors f = ops::adam_factors(o);
  run(op,
      {{"params", &params},
       {"grads", &grads, false},
       {"exp_avgs", &exp_avgs, true, true},
       {"exp_avg_sqs", &exp_avg_sqs, true, true}},
      [&](auto t) {
        using T = decltype(t);
        return Adam<T>{{},
                       static_cast<T>(1 - o.beta1),
                       static_cast<T>(o.beta2),
                       static_cast<T>(1 - o.beta2),
                       static_cast<T>(f.decay),
                       static_cast<T>(f.l2),
                       static_cast<T>(f.size),
                       static_cast<T>(f.unbias),
                       static_cast<T>(o.eps)};
      });
}

void rmsprop(const TensorList& params, const TensorList& grads, const TensorList& square_avgs,
             const TensorList* momentum_buffers, const ops::RmspropOptions& o) {
  constexpr const char* op = "rmsprop_";
  ops::rmsprop_args(op, momentum_buffers, o);
  const ListArgument p{"params", &params}, g{"grads", &grads, false},
      v{"square_avgs", &square_avgs, true, true};
  const auto step = [&](auto t, auto buffered) {
    using T = decltype(t);
    return Rmsprop<T, buffered.value>{{},
                                      static_cast<T>(o.lr),
                                      static_cast<T>(o.alpha),
                                      static_cast<T>(1 - o.alpha),
                                      static_cast<T>(o.eps),
                                      static_cast<T>(o.weight_decay),
                                      static_cast<T>(o.momentum)};
  };
  if (o.momentum == 0)
    return run(op, {p, g, v}, [&](auto t) { return step(t, std::false_type{}); });
  run(op, {p, g, v, {"momentum_buffers", momentum_buffers, true, true}},
      [&](auto t) { return step(t, std::true_type{}); });
}

void scale(const TensorList& arrays, double factor) {
  run("scale_", {{"arrays", &arrays}}, [&](auto t) {
    using T = decltype(t);
    return Scale<T>{{}, static_cast<T>(factor)};
  });
}

Array clip_grad_norm(const TensorList& grads, double max_norm) {
  constexpr const char* op = "clip_grad_norm_";
  check(!grads.empty(), op, "grads", "length", "at least 1", 0);
  const ListArgument argument[] = {{"grads", &grads}};
  ops::check_lists(op, argument, 1);
  const DType compute = compute_dtype(grads[0].dtype);
  const Arrays<1> arrays(argument);
  Array norm = Array::empty(compute, Shape());
  const Array factor = Array::empty(compute, Shape());
  dispatch_floating(grads[0].dtype, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    i64 all = 0;
    arrays.each_table<S>([&](const Table<1>&, i64 chunks) { all += chunks; });
    const Array sums = Array::empty(DType::f64, Shape(all));
    double* next = sums.as<double>();
    arrays.each_table<S>([&](const Table<1>& t, i64 chunks) {
      launch(squares_kernel<S>, {blocks_for(chunks, 1), kThreads}, t, next);
      next += chunks;
    });
    launch(norm_kernel<T>, {1, kTotal}, sums.as<double>(), all, max_norm, norm.as<T>(),
           factor.as<T>());
    arrays.run<S>(ScaleBy<T>{factor.as<T>()});
  });
  return norm;
}

}  // namespace vectile::cuda
