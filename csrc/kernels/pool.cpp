// Pooling and resampling, row of the output by row. A vector of adjacent outputs reads one tap of
// each of its windows with Vec::near, as long as the windows lie within two vectors of each other
// (strides up to 2); other windows are read one by one.
#include "kernels/pool_types.h"
#include "kernels/rows.h"

namespace vectile::VECTILE_TIER {

// Whether the windows of the m outputs from `start` on begin within the reach of Vec::near.
template <class T>
VECTILE_INLINE bool within_reach(const int32_t* start, int m) {
  return start[m - 1] - start[0] < 2 * Vec<T>::lanes;
}

// ---- maximum -----------------------------------------------------------------------------------

template <class T>
static void max_window(const T* x, const Windows& h, const Windows& w, i64 oy, i64 ox, T* y,
                       int32_t* index) {
  const i64 corner = h.start[oy] * w.inputs + w.start[ox];
  T best = -__builtin_inff();
  i64 place = corner;
  for (i64 ky = 0; ky < h.count[oy]; ++ky)
    for (i64 kx = 0; kx < w.count[ox]; ++kx) {
      const i64 at = corner + ky * h.step * w.inputs + kx * w.step;
      if (x[at] > best || x[at] != x[at]) {
        best = x[at];
        place = at;
      }
    }
  *y = best;
  if (index) *index = static_cast<int32_t>(place);
}

// Integers up to here are exact in T.
template <class T>
static constexpr i64 kExact = sizeof(T) == 4 ? i64{1} << 24 : i64{1} << 52;

// m outputs from ox on. Places are counted in lanes of T, in a large plane from the start of the
// windows' first row. K: the length of every window along both axes, known here so that the loops
// over one unroll, or 0 for any.
template <int K, bool with_index, class T>
VECTILE_INLINE void max_vector(const T* x, const Windows& h, const Windows& w, i64 oy, i64 ox,
                               int m, T* y, int32_t* index) {
  using V = Vec<T>;
  const i64 left = w.start[ox];
  V best(-__builtin_inff()), place, count;
  const i64 before = h.start[oy] * w.inputs;
  const bool large = h.inputs * w.inputs > kExact<T>;
  if constexpr (with_index)
    place = V::load(w.start + ox, m) + V(static_cast<T>(large ? 0 : before));
  const V corner = place;
  const bool uniform = K > 0 || w.uniform;
  const i64 tall = K > 0 ? K : h.count[oy], wide = K > 0 ? K : w.most;
  if (!uniform) count = V::load(w.count + ox, m);
  for (i64 ky = 0; ky < tall; ++ky) {
    const i64 down = ky * h.step;
    const T* row = x + (h.start[oy] + down) * w.inputs;
    for (i64 kx = 0; kx < wide; ++kx) {
      const i64 at = left + kx * w.step;
      const V v = V::near(row + at, w.inputs - at, w.start + ox);
      auto better = (v > best) | is_nan(v);
      if (!uniform) better = better & (V(static_cast<T>(kx)) < count);
      best = select(better, v, best);
      if constexpr (with_index)
        place = select(better, corner + V(static_cast<T>(down * w.inputs + kx * w.step)), place);
    }
  }
  best.store(y, m);
  if constexpr (with_index) {
    place.store(index, m);
    if (large)
      for (int l = 0; l < m; ++l) index[l] += static_cast<int32_t>(before);
  }
}

template <int K, bool with_index, class T>
static void max_rows(const T* x, const Windows& h, const Windows& w, T* y, int32_t* index,
                     i64 first, i64 rows) {
  constexpr i64 lanes = Vec<T>::lanes;
  const i64 farthest = (h.most - 1) * h.step * w.inputs + w.inputs - 1;
  const bool vectors = w.rising && (!with_index || farthest < kExact<T>);
  for (i64 r = first; r < first + rows; ++r) {
    const i64 oy = r % h.outputs;
    const T* plane = x + r / h.outputs * h.inputs * w.inputs;
    for (i64 ox = 0; ox < w.outputs; ox += lanes) {
      const int m = static_cast<int>(w.outputs - ox < lanes ? w.outputs - ox : lanes);
      const i64 at = r * w.outputs + ox;
      int32_t* place = with_index ? index + at : nullptr;
      if (vectors && within_reach<T>(w.start + ox, m))
        max_vector<K, with_index>(plane, h, w, oy, ox, m, y + at, place);
      else
        for (int l = 0; l < m; ++l)
          max_window(plane, h, w, oy, ox + l, y + at + l, with_index ? place + l : nullptr);
    }
  }
}

template <class T>
static void max_pool(const T* x, Windows h, Windows w, T* y, int32_t* index, i64 first, i64 rows) {
  const i64 side = h.uniform && w.uniform && h.most == w.most ? w.most : 0;
  auto body = index ? max_rows<0, true, T> : max_rows<0, false, T>;
  if (side == 2) body = index ? max_rows<2, true, T> : max_rows<2, false, T>;
  if (side == 3) body = index ? max_rows<3, true, T> : max_rows<3, false, T>;
  body(x, h, w, y, index, first, rows);
}

template <class T>
static void max_pool_backward(const T* grad, const int32_t* index, T* dx, i64 planes, i64 outputs,
                              i64 inputs, bool* valid) {
  for (i64 p = 0; p < planes; ++p, grad += outputs, index += outputs, dx += inputs) {
    row_map(dx, inputs, [](i64, auto...) VECTILE_LAMBDA { return Vec<T>(); });
    for (i64 i = 0; i < outputs; ++i) {
      const i64 at = index[i];
      if (at >= 0 && at < inputs)
        dx[at] += grad[i];
      else
        *valid = false;
    }
  }
}

// ---- weighted sums -----------------------------------------------------------------------------

// line = row oy of h x: every column's weighted sum over the rows of x.
template <class T>
static void sum_rows(const T* x, const Taps<T>& h, i64 oy, T* line, i64 width) {
  using V = Vec<T>;
  const i64 count = h.count[oy];
  const T *weight = h.weight + oy, *top = x + h.start[oy] * width;
  if (count == 2) {
    const V w0(weight[0]), w1(weight[h.pitch]);
    row_map(line, width, [&](i64 j, auto... k) VECTILE_LAMBDA {
      return fma(V::load(top + width + j, k...), w1, V::load(top + j, k...) * w0);
    });
    return;
  }
  row_map(line, width, [&](i64 j, auto... k) VECTILE_LAMBDA {
    V sum;
    for (i64 i = 0; i < count; ++i)
      sum = fma(V::load(top + i * width + j, k...), V(weight[i * h.pitch]), sum);
    return sum;
  });
}

// y = line wᵀ
template <bool full, class T>
VECTILE_INLINE void sum_columns(const T* line, const Taps<T>& w, T* y) {
  using V = Vec<T>;
  constexpr i64 lanes = V::lanes;
  if (w.pitch == 1) {
    const T* from = line + w.start[0];
    *y = static_cast<T>(row_sums<T>(w.count[0], [&](auto& s, i64 j, auto... k) VECTILE_LAMBDA {
                          s.a = fma(V::load(from + j, k...), V::load(w.weight + j, k...), s.a);
                        }).a);
    return;
  }
  for (i64 ox = 0; ox < w.outputs; ox += lanes) {
    const int m = static_cast<int>(w.outputs - ox < lanes ? w.outputs - ox : lanes);
    const int32_t* start = w.start + ox;
    if (within_reach<T>(start, m)) {
      const i64 left = start[0];
      V sum;
      for (i64 k = 0; k < w.most; ++k) {
        const V v = V::near(line + left + k, w.inputs - left - k, start);
        const V weight = V::load(w.weight + k * w.pitch + ox);
        const V more = fma(v, weight, sum);
        sum = full ? more : select(weight != V(), more, sum);
      }
      sum.store(y + ox, m);
    } else {
      for (int l = 0; l < m; ++l) {
        T sum = 0;
        for (i64 k = 0; k < w.count[ox + l]; ++k)
          sum += line[start[l] + k] * w.weight[k * w.pitch + ox + l];
        y[ox + l] = sum;
      }
    }
  }
}

template <class T>
static bool same_taps(const Taps<T>& t, i64 a, i64 b) {
  if (t.start[a] != t.start[b] || t.count[a] != t.count[b]) return false;
  for (i64 k = 0; k < t.count[a]; ++k)
    if (t.weight[k * t.pitch + a] != t.weight[k * t.pitch + b]) return false;
  return true;
}

template <class T>
static void resample(const T* x, Taps<T> h, Taps<T> w, T* y, T* line, i64 first, i64 rows) {
  for (i64 r = first; r < first + rows; ++r) {
    const i64 oy = r % h.outputs;
    T* to = y + r * w.outputs;
    if (r > first && oy > 0 && same_taps(h, oy, oy - 1)) {
      __builtin_memcpy(to, to - w.outputs, static_cast<std::size_t>(w.outputs) * sizeof(T));
      continue;
    }
    const T* plane = x + r / h.outputs * h.inputs * w.inputs;
    const T* from = plane + h.start[oy] * w.inputs;
    if (h.count[oy] != 1 || h.weight[oy] != T(1)) {
      T* sums = w.identity ? to : line;
      sum_rows(plane, h, oy, sums, w.inputs);
      from = sums;
    }
    if (w.identity) {
      if (from != to)
        row_map(to, w.outputs,
                [&](i64 j, auto... k) VECTILE_LAMBDA { return Vec<T>::load(from + j, k...); });
    } else if (w.full) {
      sum_columns<true>(from, w, to);
    } else {
      sum_columns<false>(from, w, to);
    }
  }
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
