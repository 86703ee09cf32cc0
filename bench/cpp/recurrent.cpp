#include "ops/recurrent.h"

#include "bench.h"

namespace vectile::bench {
namespace {

struct Layer {
  CellKind kind;
  Array x, w_ih, w_hh;
  Layer(CellKind kind, i64 steps, i64 batch, i64 n)
      : kind(kind),
        x(normal(Shape(steps, batch, n))),
        w_ih(normal(Shape(cell_shape(kind).gates * n, n))),
        w_hh(normal(Shape(cell_shape(kind).gates * n, n))) {}
  ops::RecurrentArguments arguments() const {
    return {kind, x, nullptr, nullptr, w_ih, w_hh, nullptr, nullptr, false, nullptr};
  }
};

const bool registered = at_start([] {
  const struct {
    const char* name;
    CellKind kind;
  } cells[] = {{"rnn", CellKind::rnn_tanh}, {"lstm", CellKind::lstm}, {"gru", CellKind::gru}};
  const i64 sizes[][3] = {{64, 32, 256}, {128, 1, 128}};
  for (const auto& cell : cells)
    for (const auto& [steps, batch, n] : sizes) {
      const std::string size = text('T', steps, 'B', batch, 'H', n);
      const double work =
          4.0 * static_cast<double>(steps * batch * cell_shape(cell.kind).gates * n * n);
      const auto make = [kind = cell.kind, steps = steps, batch = batch, n = n] {
        return share(Layer(kind, steps, batch, n));
      };
      add(text(cell.name, '/', size), "FLOP/s", work,
          [=] { return [layer = make()] { ops::recurrent(layer->arguments(), false); }; });
      add(text(cell.name, "_backward/", size), "FLOP/s", 2 * work, [=] {
        auto layer = make();
        auto f = share(ops::recurrent(layer->arguments(), true));
        return [=] {
          ops::recurrent_backward(layer->arguments(), f->states, f->states,
                                  f->gates.data ? &f->gates : nullptr, f->c.data ? &f->c : nullptr,
                                  true, true);
        };
      });
    }
});

}  // namespace
}  // namespace vectile::bench
