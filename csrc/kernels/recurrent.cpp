// rnn, lstm and gru over whole sequences; the products of all steps' inputs come ready in `gates`.
// Per step:
// 1. a strip of units at a time, gates += h W_hh^T, with W_hh packed once per call;
// 2. the cell's arithmetic on that strip while it lies in the cache; the activated gates stay for
//    the backward.
// Backward, per step: 1. the gradients of the gates; 2. dh += dgates W_hh. The products of whole
// sequences with x and h are left to gemm. (Georganas et al., arXiv 1906.06440, section 3.3)
// States live in dense rows apart from y: a sequence that has ended keeps them, and their rows lie
// on different sets of the cache.
#include "kernels/recurrent_cells.h"
#include "kernels/recurrent_strips.h"

namespace vectile::VECTILE_TIER {

static i64 state_row(const RecurrentShape& s) { return (s.hidden + 15) / 16 * 16 + 16; }

template <class T>
static void copy_row(const T* x, T* y, i64 begin, i64 end) {
  using V = Vec<T>;
  each_unit<T>(begin, end,
               [&](i64 j, auto... m) VECTILE_LAMBDA { V::load(x + j, m...).store(y + j, m...); });
}

template <class T>
static void clear_row(T* y, i64 begin, i64 end) {
  each_unit<T>(begin, end, [&](i64 j, auto... m) VECTILE_LAMBDA { Vec<T>().store(y + j, m...); });
}

static bool runs(const RecurrentShape& s, i64 t, i64 b) { return !s.lengths || t < s.lengths[b]; }

static bool any_runs(const RecurrentShape& s, i64 t, i64 b0, i64 b1) {
  for (i64 b = b0; b < b1; ++b)
    if (runs(s, t, b)) return true;
  return false;
}

// Row b of `states` (steps, batch, hidden) one step before t, or of `first` where t is the first.
template <class T>
static const T* previous(const RecurrentShape& s, const T* states, const T* first, i64 t, i64 b) {
  const i64 before = s.reverse ? t + 1 : t - 1;
  const bool inside = before >= 0 && before < s.steps && runs(s, before, b);
  return inside ? states + (before * s.batch + b) * s.hidden : first + b * s.hidden;
}

template <class T>
static void prefetch_rows(const T* x, i64 row, i64 rows, i64 columns) {
  constexpr i64 line = 64 / sizeof(T);
  for (i64 i = 0; i < rows; ++i)
    for (i64 j = 0; j < columns; j += line) __builtin_prefetch(x + i * row + j, 1, 2);
}

template <class Cell, class T>
static void forward_cell(const RecurrentForward<T>& r, i64 b0, i64 b1, T* workspace) {
  const RecurrentShape& s = r.shape;
  const i64 n = s.hidden, rows = b1 - b0, row = state_row(s);
  const Strips<T> strips(n, s.rows);
  const Panels panels(rows, strips.rows);
  T *h = workspace, *h_next = h + s.rows * row, *c = h_next + s.rows * row;
  for (i64 i = 0; i < rows; ++i) {
    copy_row(r.h0 + (b0 + i) * n, h + i * row, 0, n);
    if (r.c0) copy_row(r.c0 + (b0 + i) * n, c + i * row, 0, n);
  }
  for (i64 step = 0; step < s.steps; ++step) {
    const i64 t = s.reverse ? s.steps - 1 - step : step, first = t * s.batch + b0;
    T* const gates = r.gates + first * s.gate_row;
    T* const y = r.y + first * n;
    if (!any_runs(s, t, b0, b1)) {
      for (i64 i = 0; i < rows; ++i) clear_row(y + i * n, 0, n);
      continue;
    }
    for (i64 u = 0; u < n; u += strips.width) {
      const int columns = strips.columns(u);
      const i64 stored = strips.stored(u);
      if constexpr (Cell::only_input >= 0)
        prefetch_rows(gates + Cell::only_input * n + u, s.gate_row, rows, columns);
      if (r.weight)
        for (const CellRange range : Cell::shape)
          for (int g = 0; g < range.count; ++g) {
            const bool from_input = range.slot + g < Cell::shape.gates;  // products to add to
            multiply_strip(panels, n, h, row,
                           r.weight + (Cell::shape.gates * u + (range.gate + g) * stored) * n,
                           stored, columns, gates + (range.slot + g) * n + u, s.gate_row,
                           from_input);
          }
      for (i64 i = 0; i < rows; ++i) {
        if (runs(s, t, b0 + i)) {
          T* const c_saved = r.c ? r.c + (first + i) * n : nullptr;
          Cell::template forward<T>({n, r.bias, gates + i * s.gate_row, h + i * row,
                                     h_next + i * row, y + i * n, c + i * row, c_saved},
                                    u, u + columns);
        } else {
          copy_row(h + i * row, h_next + i * row, u, u + columns);
          clear_row(y + i * n, u, u + columns);
        }
      }
    }
    T* const before = h;
    h = h_next;
    h_next = before;
  }
  for (i64 i = 0; i < rows; ++i) {
    copy_row(h + i * row, r.h_n + (b0 + i) * n, 0, n);
    if (r.c_n) copy_row(c + i * row, r.c_n + (b0 + i) * n, 0, n);
  }
}

template <class Cell, class T>
static void backward_cell(const RecurrentBackward<T>& r, i64 b0, i64 b1, T* workspace) {
  const RecurrentShape& s = r.shape;
  const i64 n = s.hidden, rows = b1 - b0, row = state_row(s);
  const Strips<T> strips(n, s.rows);
  const Panels panels(rows, strips.rows);
  T *dh = workspace, *dc = dh + s.rows * row;
  for (i64 i = 0; i < rows; ++i) {
    copy_row(r.dh_n + (b0 + i) * n, dh + i * row, 0, n);
    if (r.dc_n) copy_row(r.dc_n + (b0 + i) * n, dc + i * row, 0, n);
  }
  for (i64 step = s.steps; step-- > 0;) {
    const i64 t = s.reverse ? s.steps - 1 - step : step, first = t * s.batch + b0;
    T* const dgates = r.dgates + first * s.gate_row;
    for (i64 i = 0; i < rows; ++i) {
      const i64 b = b0 + i, at = (first + i) * n;
      if (runs(s, t, b))
        Cell::template backward<T>({n, r.gates ? r.gates + (first + i) * s.gate_row : nullptr,
                                    r.y + at, previous(s, r.y, r.h0, t, b),
                                    r.c ? r.c + at : nullptr,
                                    r.c ? previous(s, r.c, r.c0, t, b) : nullptr, r.dy + at,
                                    dgates + i * s.gate_row, dh + i * row, dc + i * row});
      else
        clear_row(dgates + i * s.gate_row, 0, Cell::shape.slots * n);
    }
    if (!r.weight || !any_runs(s, t, b0, b1)) continue;
    for (i64 u = 0; u < n; u += strips.width) {
      const T* strip = r.weight + Cell::shape.gates * n * u;
      const i64 stored = strips.stored(u);
      for (const CellRange range : Cell::shape) {
        multiply_strip(panels, range.count * n, dgates + range.slot * n, s.gate_row, strip, stored,
                       strips.columns(u), dh + u, row, true);
        strip += range.count * n * stored;
      }
    }
  }
  for (i64 i = 0; i < rows; ++i) {
    copy_row(dh + i * row, r.dh0 + (b0 + i) * n, 0, n);
    if (r.dc0) copy_row(dc + i * row, r.dc0 + (b0 + i) * n, 0, n);
  }
}

template <class T>
static void recurrent_forward(const RecurrentForward<T>& r, i64 b0, i64 b1, T* workspace) {
  switch (r.shape.kind) {
    case CellKind::rnn_tanh:
      return forward_cell<RnnCell<false>>(r, b0, b1, workspace);
    case CellKind::rnn_relu:
      return forward_cell<RnnCell<true>>(r, b0, b1, workspace);
    case CellKind::lstm:
      return forward_cell<LstmCell>(r, b0, b1, workspace);
    case CellKind::gru:
      return forward_cell<GruCell>(r, b0, b1, workspace);
  }
}

template <class T>
static void recurrent_backward(const RecurrentBackward<T>& r, i64 b0, i64 b1, T* workspace) {
  switch (r.shape.kind) {
    case CellKind::rnn_tanh:
      return backward_cell<RnnCell<false>>(r, b0, b1, workspace);
    case CellKind::rnn_relu:
      return backward_cell<RnnCell<true>>(r, b0, b1, workspace);
    case CellKind::lstm:
      return backward_cell<LstmCell>(r, b0, b1, workspace);
    case CellKind::gru:
      return backward_cell<GruCell>(r, b0, b1, workspace);
  }
}

// Forward, strips of one gate after the other: to[gates n u + (g stored + k...)] holds
// W_hh^T (k, units u...) of gate g. Backward: rows of W_hh, all gates, cut to the strip's units.
template <class T>
static void recurrent_pack(const RecurrentShape& s, bool backward, const T* w, T* to) {
  using V = Vec<T>;
  constexpr i64 lanes = V::lanes;
  const i64 n = s.hidden, gates = cell_shape(s.kind).gates;
  const Strips<T> strips(n, s.rows);
  for (i64 u = 0; u < n; u += strips.width) {
    const i64 stored = strips.stored(u), end = u + strips.columns(u);
    for (i64 g = 0; g < gates; ++g, to += n * stored)
      for (i64 k = 0; k < n; k += backward ? 1 : lanes)
        for (i64 j = u; j < end; j += lanes) {
          const int columns = static_cast<int>(end - j < lanes ? end - j : lanes);
          T* const at = to + k * stored + (j - u);
          if (backward)
            V::load(w + (g * n + k) * n + j, columns).store(at);
          else
            transpose_block(w + (g * n + j) * n + k, n, columns,
                            static_cast<int>(n - k < lanes ? n - k : lanes), at, stored,
                            static_cast<int>(lanes));
        }
  }
}

template <class T>
static void recurrent_sizes(const RecurrentShape& s, i64* packed, i64* workspace) {
  *packed = cell_shape(s.kind).gates * s.hidden * Strips<T>(s.hidden, s.rows).padded();
  *workspace = 3 * s.rows * state_row(s);
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
