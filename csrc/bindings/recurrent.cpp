#include "ops/recurrent.h"

#include <cstring>

#include "bindings/array.h"

namespace vectile {
namespace {

CellKind parse_cell(const char* name) {
  constexpr const char* names[] = {"rnn_tanh", "rnn_relu", "lstm", "gru"};
  for (int i = 0; i < 4; ++i)
    if (std::strcmp(name, names[i]) == 0) return static_cast<CellKind>(i);
  fail("recurrent", "cell", "value", "'rnn_tanh', 'rnn_relu', 'lstm' or 'gru'",
       text("'", name, "'"));
}

// The arguments that forward and backward share; the views live as long as this.
struct Arguments {
  const char* op;
  CellKind kind;
  Input x;
  OptionalInput h0, c0;
  Input w_ih, w_hh;
  OptionalInput b_ih, b_hh, lengths;
  bool reverse;

  Arguments(const char* op, const char* cell, py::handle x, py::handle h0, py::handle c0,
            py::handle w_ih, py::handle w_hh, py::handle b_ih, py::handle b_hh, bool reverse,
            py::handle lengths)
      : op(op),
        kind(parse_cell(cell)),
        x(x, op, "x"),
        h0(h0, op, "h0"),
        c0(c0, op, "c0"),
        w_ih(w_ih, op, "w_ih"),
        w_hh(w_hh, op, "w_hh"),
        b_ih(b_ih, op, "b_ih"),
        b_hh(b_hh, op, "b_hh"),
        lengths(lengths, op, "lengths"),
        reverse(reverse) {}

  ops::RecurrentArguments views() const {
    return {kind,  *x,         h0.get(),   c0.get(), *w_ih,
            *w_hh, b_ih.get(), b_hh.get(), reverse,  lengths.get()};
  }
};

py::object optional(Array&& a) { return a.data ? to_numpy(std::move(a)) : py::none(); }

}  // namespace

void bind_recurrent(py::module_& m) {
  define(
      m, "recurrent",
      [](const char* cell, py::handle x, py::handle h0, py::handle c0, py::handle w_ih,
         py::handle w_hh, py::handle b_ih, py::handle b_hh, bool reverse, py::handle lengths,
         bool return_kept) -> py::object {
        const Arguments a("recurrent", cell, x, h0, c0, w_ih, w_hh, b_ih, b_hh, reverse, lengths);
        auto r = unlocked([&] { return ops::recurrent(a.views(), return_kept); });
        py::object states = to_numpy(std::move(r.states));
        if (!return_kept) return states;
        return py::make_tuple(states, optional(std::move(r.gates)), optional(std::move(r.c)));
      },
      py::arg("cell"), py::arg("x"), py::arg("h0"), py::arg("c0"), py::arg("w_ih"), py::arg("w_hh"),
      py::arg("b_ih"), py::arg("b_hh"), py::arg("reverse"), py::arg("lengths"),
      py::arg("return_kept"));
  define(
      m, "recurrent_backward",
      [](const char* cell, py::handle grad, py::handle states, py::handle gates, py::handle c,
         py::handle x, py::handle h0, py::handle c0, py::handle w_ih, py::handle w_hh, bool reverse,
         py::handle lengths, bool want_x, bool want_parameters) {
        constexpr const char* op = "recurrent_backward";
        const Arguments a(op, cell, x, h0, c0, w_ih, w_hh, py::none(), py::none(), reverse,
                          lengths);
        const Input g(grad, op, "grad"), y(states, op, "states");
        const OptionalInput kept(gates, op, "gates"), cells(c, op, "c");
        auto r = unlocked([&] {
          return ops::recurrent_backward(a.views(), *g, *y, kept.get(), cells.get(), want_x,
                                         want_parameters);
        });
        return py::make_tuple(optional(std::move(r.dx)), optional(std::move(r.dh0)),
                              optional(std::move(r.dc0)), optional(std::move(r.dw_ih)),
                              optional(std::move(r.dw_hh)), optional(std::move(r.db_ih)),
                              optional(std::move(r.db_hh)));
      },
      py::arg("cell"), py::arg("grad"), py::arg("states"), py::arg("gates"), py::arg("c"),
      py::arg("x"), py::arg("h0"), py::arg("c0"), py::arg("w_ih"), py::arg("w_hh"),
      py::arg("reverse"), py::arg("lengths"), py::arg("want_x"), py::arg("want_parameters"));
}

}  // namespace vectile
