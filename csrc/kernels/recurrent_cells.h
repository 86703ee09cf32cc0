// The arithmetic of one step of one sequence, on units [begin, end) of a row: what follows the
// products with h. `gates` and `bias` hold the cell's slots, `hidden` apart (recurrent_types.h).
#pragma once

#include "kernels/recurrent_types.h"
#include "kernels/rows.h"
#include "simd/activations.h"

namespace vectile::VECTILE_TIER {

// f(j) for whole vectors of units and f(j, m) for the last m of them.
template <class T, class F>
VECTILE_INLINE void each_unit(i64 begin, i64 end, F f) {
  row_each<T>(end - begin, [&](i64 j, auto... m) VECTILE_LAMBDA { f(begin + j, m...); });
}

// 1 / (1 + e^-x), <= 3 ulp for x >= -87, and below 2^-125 under that: half of sigmoid()'s work.
template <class T>
VECTILE_INLINE Vec<T> gate(Vec<T> x) {
  if constexpr (sizeof(T) == 8) {
    return sigmoid(x);
  } else {
    const Vec<T> one = 1.f;
    Vec<T> n;
    const Vec<T> p = exp_reduced(clamp(-x, Vec<T>(-87.f), Vec<T>(87.f)), n);
    return one / (one + ldexp_normal(one + p, n));
  }
}

// tanh x = E / (E + 2) with E = e^2x - 1 = p 2^n + (2^n - 1), <= 3 ulp; 1 beyond 9.1.
template <class T>
VECTILE_INLINE Vec<T> squash(Vec<T> x) {
  if constexpr (sizeof(T) == 8) {
    return tanh(x);
  } else {
    const Vec<T> one = 1.f;
    Vec<T> n;
    const Vec<T> p = exp_reduced(clamp(x + x, Vec<T>(-18.2f), Vec<T>(18.2f)), n);
    const Vec<T> scale = ldexp_normal(one, n), e = fma(p, scale, scale - one);
    return e / (e + Vec<T>(2.f));
  }
}

template <class T>
struct ForwardRow {
  i64 hidden;
  const T* bias;
  T* gates;
  const T* h;      // before the step
  T *h_next, *y;   // after it, twice
  T *c, *c_saved;  // lstm: the state, in place, and where it is kept for the backward, or null
};

template <class T>
struct BackwardRow {
  i64 hidden;
  const T *gates, *y, *h, *c, *c_prev, *dy;  // h, c_prev: before the step
  T* dgates;
  // In: the gradients of the state after the step, without what comes through y. Out: of the state
  // before it, without what comes through the products with h.
  T *dh, *dc;
};

// h' = f(W_ih x + W_hh h + b), f = tanh or relu (Elman, "Finding Structure in Time", 1990)
template <bool kRelu>
struct RnnCell {
  static constexpr CellShape shape = cell_shape(CellKind::rnn_tanh);
  static constexpr int only_input = -1;

  template <class T>
  static void forward(const ForwardRow<T>& r, i64 begin, i64 end) {
    using V = Vec<T>;
    each_unit<T>(begin, end, [&](i64 j, auto... m) VECTILE_LAMBDA {
      const V s = V::load(r.gates + j, m...) + V::load(r.bias + j, m...);
      const V h = kRelu ? relu(s) : squash(s);
      h.store(r.y + j, m...);
      h.store(r.h_next + j, m...);
    });
  }

  template <class T>
  static void backward(const BackwardRow<T>& r) {
    using V = Vec<T>;
    const V one(T(1));
    each_unit<T>(0, r.hidden, [&](i64 j, auto... m) VECTILE_LAMBDA {
      const V y = V::load(r.y + j, m...), dh = V::load(r.dh + j, m...) + V::load(r.dy + j, m...);
      const V d = kRelu ? select(y > V(), dh, V()) : dh * fnma(y, y, one);
      d.store(r.dgates + j, m...);
      V().store(r.dh + j, m...);
    });
  }
};

// i, f, o = sigmoid(...), g = tanh(...), c' = f c + i g, h' = o tanh(c')
// (Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber and Cummins 2000)
struct LstmCell {
  static constexpr CellShape shape = cell_shape(CellKind::lstm);
  static constexpr int only_input = -1;

  template <class T>
  static void forward(const ForwardRow<T>& r, i64 begin, i64 end) {
    using V = Vec<T>;
    const i64 n = r.hidden;
    each_unit<T>(begin, end, [&](i64 j, auto... m) VECTILE_LAMBDA {
      const auto sum = [&](i64 k) VECTILE_LAMBDA {
        return V::load(r.gates + k, m...) + V::load(r.bias + k, m...);
      };
      const V i = gate(sum(j)), f = gate(sum(n + j));
      const V g = squash(sum(2 * n + j)), o = gate(sum(3 * n + j));
      const V c = fma(f, V::load(r.c + j, m...), i * g), h = o * squash(c);
      i.store(r.gates + j, m...);
      f.store(r.gates + n + j, m...);
      g.store(r.gates + 2 * n + j, m...);
      o.store(r.gates + 3 * n + j, m...);
      c.store(r.c + j, m...);
      if (r.c_saved) c.store(r.c_saved + j, m...);
      h.store(r.y + j, m...);
      h.store(r.h_next + j, m...);
    });
  }

  template <class T>
  static void backward(const BackwardRow<T>& r) {
    using V = Vec<T>;
    const i64 n = r.hidden;
    const V one(T(1));
    each_unit<T>(0, n, [&](i64 j, auto... m) VECTILE_LAMBDA {
      const V i = V::load(r.gates + j, m...), f = V::load(r.gates + n + j, m...);
      const V g = V::load(r.gates + 2 * n + j, m...), o = V::load(r.gates + 3 * n + j, m...);
      const V dh = V::load(r.dh + j, m...) + V::load(r.dy + j, m...);
      const V t = squash(V::load(r.c + j, m...));
      const V dc = fma(dh * o, fnma(t, t, one), V::load(r.dc + j, m...));
      (dc * g * (i * (one - i))).store(r.dgates + j, m...);
      (dc * V::load(r.c_prev + j, m...) * (f * (one - f))).store(r.dgates + n + j, m...);
      (dc * i * fnma(g, g, one)).store(r.dgates + 2 * n + j, m...);
      (dh * t * (o * (one - o))).store(r.dgates + 3 * n + j, m...);
      (dc * f).store(r.dc + j, m...);
      V().store(r.dh + j, m...);
    });
  }
};

// r, z = sigmoid(...), q = W_hn h + b_hn, n = tanh(W_in x + b_in + r q), h' = (1 - z) n + z h
// (Cho et al., arXiv 1406.1078; the reset gate after the product, as in cuDNN and PyTorch)
struct GruCell {
  static constexpr CellShape shape = cell_shape(CellKind::gru);
  static constexpr int only_input = 2;  // the slot that no product with h brings into the cache

  template <class T>
  static void forward(const ForwardRow<T>& r, i64 begin, i64 end) {
    using V = Vec<T>;
    const i64 k = r.hidden;
    each_unit<T>(begin, end, [&](i64 j, auto... m) VECTILE_LAMBDA {
      const auto sum = [&](i64 i) VECTILE_LAMBDA {
        return V::load(r.gates + i, m...) + V::load(r.bias + i, m...);
      };
      const V reset = gate(sum(j)), z = gate(sum(k + j)), q = sum(3 * k + j);
      const V n = squash(fma(reset, q, sum(2 * k + j)));
      const V h = fma(z, V::load(r.h + j, m...) - n, n);
      reset.store(r.gates + j, m...);
      z.store(r.gates + k + j, m...);
      n.store(r.gates + 2 * k + j, m...);
      q.store(r.gates + 3 * k + j, m...);
      h.store(r.y + j, m...);
      h.store(r.h_next + j, m...);
    });
  }

  template <class T>
  static void backward(const BackwardRow<T>& r) {
    using V = Vec<T>;
    const i64 k = r.hidden;
    const V one(T(1));
    each_unit<T>(0, k, [&](i64 j, auto... m) VECTILE_LAMBDA {
      const V reset = V::load(r.gates + j, m...), z = V::load(r.gates + k + j, m...);
      const V n = V::load(r.gates + 2 * k + j, m...), q = V::load(r.gates + 3 * k + j, m...);
      const V dh = V::load(r.dh + j, m...) + V::load(r.dy + j, m...);
      const V dn = dh * (one - z) * fnma(n, n, one);
      (dn * q * (reset * (one - reset))).store(r.dgates + j, m...);
      (dh * (V::load(r.h + j, m...) - n) * (z * (one - z))).store(r.dgates + k + j, m...);
      dn.store(r.dgates + 2 * k + j, m...);
      (dn * reset).store(r.dgates + 3 * k + j, m...);
      (dh * z).store(r.dh + j, m...);
    });
  }
};

}  // namespace vectile::VECTILE_TIER
