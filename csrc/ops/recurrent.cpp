#include "ops/recurrent.h"

#include <algorithm>
#include <cstring>

#include "ops/gemm.h"
#include "ops/indices.h"
#include "ops/staging.h"

namespace vectile::ops {

// The arguments with every array of a half type widened. Not in the unnamed namespace, where
// in_float32 would not find the function below.
class Float32Arguments {
 public:
  explicit Float32Arguments(const RecurrentArguments& a)
      : a_(a),
        x_(float32_argument(a.x)),
        w_ih_(float32_argument(a.w_ih)),
        w_hh_(float32_argument(a.w_hh)),
        h0_(a.h0),
        c0_(a.c0),
        b_ih_(a.b_ih),
        b_hh_(a.b_hh) {}
  operator RecurrentArguments() const {
    return {a_.kind, x_, h0_, c0_, w_ih_, w_hh_, b_ih_, b_hh_, a_.reverse, a_.lengths};
  }

 private:
  const RecurrentArguments& a_;
  Array x_, w_ih_, w_hh_;
  OptionalFloat32 h0_, c0_, b_ih_, b_hh_;
};
static Float32Arguments float32_argument(const RecurrentArguments& a) {
  return Float32Arguments(a);
}

namespace {

// A checked argument, row-major: from here on all of them are of one type.
Array checked(const TensorView& x) {
  Array y = contiguous(x);
  y.origin = DType::other;
  return y;
}

// Rows [begin, end) of the first axis.
TensorView slice(const TensorView& x, i64 begin, i64 end) {
  TensorView y = x;
  y.shape[0] = end - begin;
  y.data = static_cast<char*>(x.data) + begin * x.strides[0] * static_cast<i64>(item_size(x.dtype));
  return y;
}

// Columns [begin, end) of `rows` rows of `data`, `row` elements apart.
TensorView block(const TensorView& data, i64 rows, i64 row, i64 begin, i64 end) {
  TensorView y = data;
  y.shape = Shape(rows, end - begin);
  y.strides[0] = row;
  y.strides[1] = 1;
  y.data = static_cast<char*>(data.data) + begin * static_cast<i64>(item_size(data.dtype));
  return y;
}

TensorView transposed(const TensorView& x) {
  constexpr int order[] = {1, 0};
  return permuted(x, order);
}

// y += x, both row-major or strided along rows only.
template <class T>
void add_rows(const TensorView& x, const TensorView& y) {
  for (i64 i = 0; i < y.shape[0]; ++i) {
    const T* from = x.as<T>() + i * x.strides[0];
    T* to = y.as<T>() + i * y.strides[0];
    for (i64 j = 0; j < y.shape[1]; ++j) to[j] += from[j];
  }
}

// Checked arguments of one call, in the layouts the kernels read.
struct Problem {
  RecurrentShape shape;
  CellShape cell;
  DType dtype;
  i64 inputs;
  Array x, h0, c0, w_ih, w_hh;
  bool from_zero;  // no h0 was given
  Buffer<i64> lengths;

  i64 cells() const { return shape.steps * shape.batch; }
  // Columns of gates whose gradients meet w_ih.
  i64 input_columns() const { return cell.gates * shape.hidden; }
  i64 chunks() const { return shape.rows ? ceil_div(shape.batch, shape.rows) : 0; }
};

// Rows of the batch that go through the steps together. Threads take whole sequences, so that no
// step waits for another thread.
i64 rows_of_chunk(i64 batch, double work) {
  constexpr i64 least_rows = 16;
  constexpr double least_work = 1 << 21;  // multiply-adds
  const i64 chunks = std::min(batch / least_rows, static_cast<i64>(work / least_work));
  return chunks > 1 ? ceil_div(batch, chunks) : batch;
}

Array state(const char* op, const char* name, const TensorView* given, const Problem& p,
            const TensorView& x) {
  const Shape expected(p.shape.batch, p.shape.hidden);
  if (!given) return Array::zeros(p.dtype, expected);
  check_same_dtype(op, name, *given, x);
  check_shape(op, name, *given, expected);
  return checked(*given);
}

// x with zeros past the sequences' ends, so that nothing there is ever read.
Array without_padding(const TensorView& x, const Problem& p) {
  if (!p.lengths.get()) return checked(x);
  Array y = Array::empty(x.dtype, x.shape);
  copy_strided(x, y);
  const i64 bytes = p.inputs * static_cast<i64>(item_size(x.dtype));
  for (i64 b = 0; b < p.shape.batch; ++b)
    for (i64 t = p.lengths[b]; t < p.shape.steps; ++t)
      std::memset(static_cast<char*>(y.data) + (t * p.shape.batch + b) * bytes, 0, bytes);
  return y;
}

Problem check_arguments(const char* op, const RecurrentArguments& a) {
  check_floating(op, "x", a.x);
  check(a.x.ndim() == 3, op, "x", "ndim", 3, a.x.ndim());
  check_same_dtype(op, "w_ih", a.w_ih, a.x);
  check_same_dtype(op, "w_hh", a.w_hh, a.x);
  check(a.w_hh.ndim() == 2, op, "w_hh", "ndim", 2, a.w_hh.ndim());
  Problem p;
  p.dtype = a.x.dtype;
  p.cell = cell_shape(a.kind);
  p.inputs = a.x.shape[2];
  const i64 hidden = a.w_hh.shape[1], gates = p.cell.gates;
  if (a.w_hh.shape[0] % gates != 0 || a.w_hh.shape[0] / gates != hidden)
    fail(op, "w_hh", "shape", text("(", gates, " * hidden, hidden)"), a.w_hh.shape);
  check_shape(op, "w_ih", a.w_ih, Shape(a.w_hh.shape[0], p.inputs));
  for (const auto& [name, b] : {std::pair{"b_ih", a.b_ih}, std::pair{"b_hh", a.b_hh}})
    if (b) {
      check_same_dtype(op, name, *b, a.x);
      check_shape(op, name, *b, Shape(a.w_hh.shape[0]));
    }
  RecurrentShape& s = p.shape;
  s.kind = a.kind;
  s.reverse = a.reverse;
  s.steps = a.x.shape[0];
  s.batch = a.x.shape[1];
  s.hidden = hidden;
  s.lengths = nullptr;
  if (a.lengths) {
    check_shape(op, "lengths", *a.lengths, Shape(s.batch));
    p.lengths = integers(op, "lengths", *a.lengths);
    for (i64 b = 0; b < s.batch; ++b)
      if (p.lengths[b] < 0 || p.lengths[b] > s.steps)
        fail(op, "lengths", text("at (", b, ",)").c_str(), text("a value in [0, ", s.steps, "]"),
             p.lengths[b]);
    s.lengths = p.lengths.get();
  }
  s.rows =
      rows_of_chunk(s.batch, double(p.cells()) * double(hidden) * double(hidden) * p.cell.gates);
  // Rows a cache line beyond a multiple of their lines do not collide in the cache.
  s.gate_row = round_up(p.cell.slots * hidden, 16) + 16;
  p.from_zero = !a.h0;
  p.h0 = state(op, "h0", a.h0, p, a.x);
  if (a.kind == CellKind::lstm) p.c0 = state(op, "c0", a.c0, p, a.x);
  p.x = without_padding(a.x, p);
  p.w_ih = checked(a.w_ih);
  p.w_hh = checked(a.w_hh);
  return p;
}

// (slots, hidden): b_ih + b_hh, and apart where the cell keeps their products apart.
template <class T>
Buffer<T> slot_biases(const Problem& p, const TensorView* b_ih, const TensorView* b_hh) {
  const i64 n = p.shape.hidden;
  Buffer<T> bias(std::max<i64>(1, p.cell.slots * n));
  std::fill_n(bias.get(), p.cell.slots * n, T(0));
  const auto add = [&](const TensorView* b, int gate, int slot, int count) {
    if (!b) return;
    for (i64 j = 0; j < count * n; ++j)
      bias[slot * n + j] += b->as<T>()[(gate * n + j) * b->strides[0]];
  };
  add(b_ih, 0, 0, p.cell.gates);
  for (const CellRange r : p.cell) add(b_hh, r.gate, r.slot, r.count);
  return bias;
}

template <class T>
struct Scratch {
  i64 packed, workspace;
  explicit Scratch(const RecurrentShape& s) {
    kernels_of<T>().recurrent_sizes(s, &packed, &workspace);
  }
};

// A single step reads its weights once: plain products, where packing would read them twice.
bool packs(const Problem& p) { return p.shape.steps > 1; }

// gates += h0 w_hh^T
template <class T>
void add_first_product(const Problem& p, T* gates) {
  const i64 n = p.shape.hidden, batch = p.shape.batch;
  TensorView rows = p.h0;
  rows.data = gates;
  const Array product = p.from_zero ? Array() : matmul(p.h0, transposed(p.w_hh));
  for (const CellRange r : p.cell) {
    const TensorView to = block(rows, batch, p.shape.gate_row, r.slot * n, (r.slot + r.count) * n);
    if (r.slot >= p.cell.gates)  // a slot without a product of the inputs
      for (i64 b = 0; b < batch; ++b)
        std::fill_n(to.as<T>() + b * p.shape.gate_row, r.count * n, T(0));
    if (!p.from_zero)
      add_rows<T>(block(product, batch, p.cell.gates * n, r.gate * n, (r.gate + r.count) * n), to);
  }
}

template <class T>
void run_chunks_of(const Problem& p, i64 workspace, auto&& kernel) {
  parallel_for(p.chunks(), [&](i64 chunk) {
    const Buffer<T> scratch(workspace);
    const i64 begin = chunk * p.shape.rows;
    kernel(begin, std::min(begin + p.shape.rows, p.shape.batch), scratch.get());
  });
}

const char* op_name(CellKind kind, bool backward) {
  constexpr const char* names[][2] = {{"rnn", "rnn_backward"},
                                      {"rnn", "rnn_backward"},
                                      {"lstm", "lstm_backward"},
                                      {"gru", "gru_backward"}};
  return names[static_cast<int>(kind)][backward];
}

}  // namespace

RecurrentStates recurrent(const RecurrentArguments& a, bool keep) {
  if (is_half(a.x.dtype)) return in_float32(a.x.dtype, recurrent, a, keep);
  Problem p = check_arguments(op_name(a.kind, false), a);
  RecurrentShape& s = p.shape;
  const bool lstm = a.kind == CellKind::lstm;
  RecurrentStates result;
  result.states = Array::empty(p.dtype, Shape(s.steps + 1 + lstm, s.batch, s.hidden));
  const bool own_gates = p.cell.slots > 1;  // rnn activates y in place
  if (own_gates)
    result.gates = Array::empty(p.dtype, Shape(s.steps, s.batch, s.gate_row));
  else
    s.gate_row = s.hidden;
  if (lstm && keep) result.c = Array::empty(p.dtype, Shape(s.steps, s.batch, s.hidden));
  if (s.batch == 0 || s.hidden == 0) return result;

  const TensorView gates = own_gates ? TensorView(result.gates) : slice(result.states, 0, s.steps);
  if (s.steps > 0) {
    const TensorView x = block(p.x, p.cells(), p.inputs, 0, p.inputs);
    const TensorView products = block(gates, p.cells(), s.gate_row, 0, p.input_columns());
    matmul(x, transposed(p.w_ih), &products);
  }
  dispatch_float(p.dtype, [&](auto type) {
    using T = decltype(type);
    const FloatKernels<T>& k = kernels_of<T>();
    const Scratch<T> size(s);
    const Buffer<T> bias = slot_biases<T>(p, a.b_ih, a.b_hh);
    const Buffer<T> packed(packs(p) ? size.packed : 0);
    if (packs(p))
      k.recurrent_pack(s, false, p.w_hh.as<T>(), packed.get());
    else if (s.steps == 1)
      add_first_product(p, gates.as<T>());
    T* const h_n = result.states.as<T>() + p.cells() * s.hidden;
    const RecurrentForward<T> r{s,
                                packed.get(),
                                bias.get(),
                                p.h0.as<T>(),
                                p.c0.as<T>(),
                                gates.as<T>(),
                                result.states.as<T>(),
                                result.c.as<T>(),
                                h_n,
                                lstm ? h_n + s.batch * s.hidden : nullptr};
    run_chunks_of<T>(p, size.workspace,
                     [&](i64 b0, i64 b1, T* scratch) { k.recurrent_forward(r, b0, b1, scratch); });
  });
  if (!keep) result.gates = Array();
  return result;
}

namespace {

// (batch, slots * hidden): the gradients at each sequence's first step, which read h0.
template <class T>
Array first_gradients(const Problem& p, const Array& dgates) {
  const RecurrentShape& s = p.shape;
  const i64 columns = p.cell.slots * s.hidden;
  Array first = Array::zeros(p.dtype, Shape(s.batch, columns));
  for (i64 b = 0; b < s.batch; ++b) {
    const i64 length = s.lengths ? s.lengths[b] : s.steps, t = s.reverse ? length - 1 : 0;
    if (length > 0)
      std::copy_n(dgates.as<T>() + (t * s.batch + b) * s.gate_row, columns,
                  first.as<T>() + b * columns);
  }
  return first;
}

// dw_hh: every step's gradients with the state before it.
template <class T>
void hidden_weight_gradient(const Problem& p, const Array& dgates, const Array& states,
                            const Array& dw) {
  const RecurrentShape& s = p.shape;
  const i64 n = s.hidden, later = std::max<i64>(0, s.steps - 1) * s.batch;
  const Array first = p.from_zero ? Array() : first_gradients<T>(p, dgates);
  if (later == 0) std::fill_n(dw.as<T>(), dw.elements(), T(0));
  const TensorView steps = block(dgates, p.cells(), s.gate_row, 0, p.cell.slots * n);
  const TensorView y = block(states, p.cells(), n, 0, n);
  const i64 from = s.reverse ? 0 : s.batch, before = s.reverse ? s.batch : 0;
  for (const CellRange r : p.cell) {
    const TensorView rows = slice(dw, r.gate * n, (r.gate + r.count) * n);
    const auto columns = [&](const TensorView& g) {
      return block(g, g.shape[0], g.strides[0], r.slot * n, (r.slot + r.count) * n);
    };
    if (later > 0)
      matmul(transposed(columns(slice(steps, from, from + later))),
             slice(y, before, before + later), &rows);
    if (!p.from_zero) add_rows<T>(matmul(transposed(columns(first)), p.h0), rows);
  }
}

// (slots * hidden,): dgates summed over steps and batch.
template <class T>
Buffer<T> slot_sums(const Problem& p, const Array& dgates) {
  const i64 columns = p.cell.slots * p.shape.hidden;
  Buffer<T> sums(columns);
  const auto kernel = kernels_of<T>().column_sum;
  parallel_ranges(columns, std::max<i64>(64, kGrain / p.cells()), [&](i64 begin, i64 end) {
    kernel(dgates.as<T>() + begin, p.shape.gate_row, sums.get() + begin, p.cells(), end - begin);
  });
  return sums;
}

// dh0 += dgates w_hh of a single step.
template <class T>
void add_first_gradient(const Problem& p, const Array& dgates, const Array& dh0) {
  const i64 n = p.shape.hidden;
  for (const CellRange r : p.cell) {
    const TensorView g =
        block(dgates, p.shape.batch, p.shape.gate_row, r.slot * n, (r.slot + r.count) * n);
    add_rows<T>(matmul(g, slice(p.w_hh, r.gate * n, (r.gate + r.count) * n)), dh0);
  }
}

}  // namespace

RecurrentGradients recurrent_backward(const RecurrentArguments& a, const TensorView& grad,
                                      const TensorView& states, const TensorView* gates,
                                      const TensorView* c, bool want_x, bool want_parameters) {
  const char* op = op_name(a.kind, true);
  if (is_half(a.x.dtype))
    return in_float32(a.x.dtype, recurrent_backward, a, grad, states, gates, c, want_x,
                      want_parameters);
  const Problem p = check_arguments(op, a);
  const RecurrentShape& s = p.shape;
  const bool lstm = a.kind == CellKind::lstm;
  const auto kept = [&](const char* name, const TensorView* x, const Shape& shape, bool needed) {
    if (!needed) return Array();
    if (!x) fail(op, name, "value", "what the forward kept", "None");
    check_parameter_dtype(op, name, *x, a.x);
    check_shape(op, name, *x, shape);
    return checked(*x);
  };
  const Shape all(s.steps + 1 + lstm, s.batch, s.hidden);
  const Array g = kept("grad", &grad, all, true), y = kept("states", &states, all, true);
  const Array activated =
      kept("gates", gates, Shape(s.steps, s.batch, s.gate_row), p.cell.slots > 1);
  const Array cells = kept("c", c, Shape(s.steps, s.batch, s.hidden), lstm);

  RecurrentGradients result;
  // Without a step or a state, every product below is empty.
  const bool nothing = s.steps == 0 || s.batch == 0 || s.hidden == 0;
  const auto make = [&](const Shape& shape) {
    return nothing ? Array::zeros(p.dtype, shape) : Array::empty(p.dtype, shape);
  };
  result.dh0 = make(p.h0.shape);
  if (lstm) result.dc0 = make(p.h0.shape);
  if (want_x) result.dx = make(a.x.shape);
  if (want_parameters) {
    result.dw_ih = make(p.w_ih.shape);
    result.dw_hh = make(p.w_hh.shape);
    result.db_ih = make(Shape(p.w_hh.shape[0]));
    result.db_hh = make(Shape(p.w_hh.shape[0]));
  }
  if (s.batch == 0 || s.hidden == 0) return result;

  const Array dgates = Array::empty(p.dtype, Shape(s.steps, s.batch, s.gate_row));
  dispatch_float(p.dtype, [&](auto type) {
    using T = decltype(type);
    const FloatKernels<T>& k = kernels_of<T>();
    const Scratch<T> size(s);
    const Buffer<T> packed(packs(p) ? size.packed : 0);
    if (packs(p)) k.recurrent_pack(s, true, p.w_hh.as<T>(), packed.get());
    const T* dh_n = g.as<T>() + p.cells() * s.hidden;
    const RecurrentBackward<T> r{s,
                                 packed.get(),
                                 p.h0.as<T>(),
                                 p.c0.as<T>(),
                                 activated.as<T>(),
                                 y.as<T>(),
                                 cells.as<T>(),
                                 g.as<T>(),
                                 dh_n,
                                 lstm ? dh_n + s.batch * s.hidden : nullptr,
                                 dgates.as<T>(),
                                 result.dh0.as<T>(),
                                 result.dc0.as<T>()};
    run_chunks_of<T>(p, size.workspace,
                     [&](i64 b0, i64 b1, T* scratch) { k.recurrent_backward(r, b0, b1, scratch); });
    if (s.steps == 0) return;
    if (s.steps == 1) add_first_gradient<T>(p, dgates, result.dh0);
    const TensorView to_inputs = block(dgates, p.cells(), s.gate_row, 0, p.input_columns());
    if (want_x) {
      const TensorView dx = block(result.dx, p.cells(), p.inputs, 0, p.inputs);
      matmul(to_inputs, p.w_ih, &dx);
    }
    if (!want_parameters) return;
    const TensorView x = block(p.x, p.cells(), p.inputs, 0, p.inputs);
    matmul(transposed(to_inputs), x, &result.dw_ih);
    hidden_weight_gradient<T>(p, dgates, y, result.dw_hh);
    const Buffer<T> sums = slot_sums<T>(p, dgates);
    const i64 n = s.hidden;
    std::copy_n(sums.get(), p.input_columns(), result.db_ih.as<T>());
    for (const CellRange part : p.cell)
      std::copy_n(sums.get() + part.slot * n, part.count * n, result.db_hh.as<T>() + part.gate * n);
  });
  return result;
}

}  // namespace vectile::ops
