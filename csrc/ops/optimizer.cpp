#include "ops/optimizer.h"

#include <algorithm>
#include <cmath>

#include "ops/staging.h"

namespace vectile::ops {
namespace {

struct Argument {
  const char* name;
  const TensorList* list;  // null: not given
  bool written = true;
  bool state = false;
};

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

std::string at(const char* name, std::size_t i) { return text(name, "[", i, "]"); }

void check_at_least_zero(const char* op, const char* name, double value) {
  check(value >= 0, op, name, "value", "at least 0", value);
}

void check_below_one(const char* op, const char* name, double value) {
  check(value >= 0 && value < 1, op, name, "value", "0 <= value < 1", value);
}

void check_lists(const char* op, const Argument* arguments, int count) {
  const TensorList& first = *arguments[0].list;
  for (int a = 0; a < count; ++a) {
    const auto& [name, list, written, state] = arguments[a];
    if (!list) continue;
    check(list->size() == first.size(), op, name, "length", first.size(), list->size());
    for (std::size_t i = 0; i < list->size(); ++i) {
      const TensorView& x = (*list)[i];
      if (a == 0 && i == 0) check_floating(op, at(name, i).c_str(), x);
      if (x.dtype != first[0].dtype) {
        const auto check_dtype = state ? check_parameter_dtype : check_same_dtype;
        check_dtype(op, at(name, i).c_str(), x, first[0]);
      }
      if (!(x.shape == first[i].shape)) check_shape(op, at(name, i).c_str(), x, first[i].shape);
      if (written && !x.writable)
        fail(op, at(name, i).c_str(), "flags", "a writable array", "a read-only one");
    }
  }
}

// Runs fn(pointers, n) over row-major pieces of the tensors of all lists: pointers[a] belongs to
// arguments[a], null where the list is. Chunks are cut from the tensors laid end to end, so that
// many small ones share a chunk and a large one has several.
template <class T, int count, class F>
void each_piece(const Argument (&arguments)[count], F fn) {
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
void run(const char* op, const Argument (&arguments)[count], F&& fn) {
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
  check_at_least_zero(op, "lr", o.lr);
  check_at_least_zero(op, "momentum", o.momentum);
  check_at_least_zero(op, "weight_decay", o.weight_decay);
  check(momentum_buffers || o.momentum == 0, op, "momentum_buffers", "value",
        "a list where momentum is not 0", "None");
  check(!o.nesterov || (o.momentum > 0 && o.dampening == 0), op, "nesterov", "value",
        "False unless momentum > 0 and dampening = 0", "True");
  const TensorList* buffers = o.momentum == 0 ? nullptr : momentum_buffers;
  run(op,
      {{"params", &params}, {"grads", &grads, false}, {"momentum_buffers", buffers, true, true}},
      [&](const auto& k, const auto* p, i64 n) {
        k.sgd(p[0], p[1], p[2], n, o.lr, o.momentum, o.dampening, o.weight_decay, o.nesterov);
      });
}

void adam(const char* op, const TensorList& params, const TensorList& grads,
          const TensorList& exp_avgs, const TensorList& exp_avg_sqs, const AdamOptions& o) {
  check_at_least_zero(op, "lr", o.lr);
  check_below_one(op, "beta1", o.beta1);
  check_below_one(op, "beta2", o.beta2);
  check_at_least_zero(op, "eps", o.eps);
  check_at_least_zero(op, "weight_decay", o.weight_decay);
  check(o.step >= 1, op, "step", "value", "at least 1", o.step);
  const auto t = static_cast<double>(o.step);
  const double step_size = o.lr / (1 - std::pow(o.beta1, t));
  const double scale2 = 1 / std::sqrt(1 - std::pow(o.beta2, t));
  const double l2 = o.decoupled ? 0 : o.weight_decay;
  const double decay = o.decoupled ? 1 - o.lr * o.weight_decay : 1;
  run(op,
      {{"params", &params},
       {"grads", &grads, false},
       {"exp_avgs", &exp_avgs, true, true},
       {"exp_avg_sqs", &exp_avg_sqs, true, true}},
      [&](const auto& k, const auto* p, i64 n) {
        k.adam(p[0], p[1], p[2], p[3], n, o.beta1, o.beta2, l2, decay, step_size, scale2, o.eps);
      });
}

void rmsprop(const TensorList& params, const TensorList& grads, const TensorList& square_avgs,
             const TensorList* momentum_buffers, const RmspropOptions& o) {
  constexpr const char* op = "rmsprop_";
  check_at_least_zero(op, "lr", o.lr);
  check(o.alpha >= 0 && o.alpha <= 1, op, "alpha", "value", "0 to 1", o.alpha);
  check_at_least_zero(op, "eps", o.eps);
  check_at_least_zero(op, "weight_decay", o.weight_decay);
  check_at_least_zero(op, "momentum", o.momentum);
  check(momentum_buffers || o.momentum == 0, op, "momentum_buffers", "value",
        "a list where momentum is not 0", "None");
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
