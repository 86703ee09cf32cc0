#include "ops/optimizer.h"

#include <algorithm>

#include "ops/staging.h"

namespace vectile::ops {
namespace {

// One row per element, widened before a kernel and narrowed after it unless it is only read.
template <class T>
class Updated {
 public:
  using Pointer = T*;
  Updated(const TensorView& x, bool written) : read_(x, 1), write_(x, 1), written_(written) {}
  i64 scratch() const { return read_.scratch(); }
  T* in_place(i64 row) const { return write_.in_place(row); }
  T* begin(i64 row, i64 rows, T*& free) const {
    return const_cast<T*>(read_.begin(row, rows, free));
  }
  void end(i64 row, i64 rows, T* piece) const {
    if (written_) write_.end(row, rows, piece);
  }

 private:
  Staged<T, const T*> read_;
  Staged<T, T*> write_;
  bool written_;
};

// Runs fn(pointers, n) over row-major pieces of the tensors of all lists: pointers[a] belongs to
// arguments[a], null where the list is. Chunks are cut from the tensors laid end to end, so that
// many small ones share a chunk and a large one has several.
template <class T, int count, class F>
void each_piece(const ListArgument (&arguments)[count], F fn) {
  const TensorList& params = *arguments[0].list;
  const std::size_t tensors = params.size();
  std::vector<TensorView> data(tensors * count);  // row-major
  std::vector<i64> start(tensors + 1);
  std::vector<std::pair<Array, const TensorView*>>
      packed;  // row-major copies, and where they go back
  for (std::size_t i = 0; i < tensors; ++i) {
    start[i + 1] = start[i] + params[i].elements();
    for (int a = 0; a < count; ++a) {
      if (!arguments[a].list) continue;
      const TensorView& x = (*arguments[a].list)[i];
      data[i * count + a] = x;
      if (x.contiguous()) continue;
      packed.emplace_back(contiguous(x), arguments[a].written ? &x : nullptr);
      data[i * count + a] = packed.back().first;
    }
  }
  parallel_ranges(start[tensors], kGrain, [&](i64 begin, i64 end) {
    std::size_t i = std::upper_bound(start.begin(), start.end(), begin) - start.begin() - 1;
    for (; begin < end; begin = start[++i]) {
      const i64 last = std::min(end, start[i + 1]) - start[i];
      // Every one is widened, and narrowed again where it is written.
      [&]<std::size_t... a>(std::index_sequence<a...>) {
        const auto run = [&](i64, i64 n, auto... p) {
          T* const pointers[] = {const_cast<T*>(p)...};
          fn(pointers, n);
        };
        staged_pieces<T>(begin - start[i], last, run,
                         Updated<T>(data[i * count + a], arguments[a].written)...);
      }(std::make_index_sequence<count>());
    }
  });
  for (const auto& [copy, original] : packed)
    if (original) copy_strided(copy, *original);
}

template <int count, class F>
void run(const char* op, const ListArgument (&arguments)[count], F&& fn) {
  check_lists(op, arguments, count);
  if (arguments[0].list->empty()) return;
  dispatch_float((*arguments[0].list)[0].dtype, [&](auto t) {
    using T = decltype(t);
    each_piece<T>(arguments, [&](T* const* p, i64 n) { fn(kernels_of<T>(), p, n); });
  });
}

}  // namespace

void sgd(const TensorList& params, const TensorList& grads, const TensorList* momentum_buffers,
         const SgdOptions& o) {
  constexpr const char* op = "sgd_";
  sgd_args(op, momentum_buffers, o);
  const TensorList* buffers = o.momentum == 0 ? nullptr : momentum_buffers;
  run(op,
      {{"params", &params}, {"grads", &grads, false}, {"momentum_buffers", buffers, true, true}},
      [&](const auto& k, const auto* p, i64 n) {
        k.sgd(p[0], p[1], p[2], n, o.lr, o.momentum, o.dampening, o.weight_decay, o.nesterov);
      });
}

void adam(const char* op, const TensorList& params, const TensorList& grads,
          const TensorList& exp_avgs, const TensorList& exp_avg_sqs, const AdamOptions& o) {
  adam_args(op, o);
  const AdamFactors f = adam_factors(o);
  run(op,
      {{"params", &params},
       {"grads", &grads, false},
       {"exp_avgs", &exp_avgs, true, true},
       {"exp_avg_sqs", &exp_avg_sqs, true, true}},
      [&](const auto& k, const auto* p, i64 n) {
        k.adam(p[0], p[1], p[2], p[3], n, o.beta1, o.beta2, f.l2, f.decay, f.size, f.unbias, o.eps);
      });
}

void rmsprop(const TensorList& params, const TensorList& grads, const TensorList& square_avgs,
             const TensorList* momentum_buffers, const RmspropOptions& o) {
  constexpr const char* op = "rmsprop_";
  rmsprop_args(op, momentum_buffers, o);
  const TensorList* buffers = o.momentum == 0 ? nullptr : momentum_buffers;
  run(op,
      {{"params", &params},
       {"grads", &grads, false},
       {"square_avgs", &square_avgs, true, true},
       {"momentum_buffers", buffers, true, true}},
      [&](const auto& k, const auto* p, i64 n) {
        k.rmsprop(p[0], p[1], p[2], p[3], n, o.lr, o.alpha, o.eps, o.weight_decay, o.momentum);
      });
}

void scale(const TensorList& arrays, double factor) {
  run("scale_", {{"arrays", &arrays}},
      [&](const auto& k, const auto* p, i64 n) { k.scale(p[0], n, factor); });
}

}  // namespace vectile::ops
