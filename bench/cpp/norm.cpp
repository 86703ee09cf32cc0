#include "ops/norm.h"

#include "bench.h"

namespace vectile::bench {
namespace {

const bool registered = at_start([] {
  for (const i64 n : {128, 1024}) {
    const double elements = static_cast<double>(n * n);
    add(text("layer_norm/", n, 'x', n), "B/s", 8 * elements, [n] {
      return [x = share(normal(Shape(n, n))), w = share(normal(Shape(n)))] {
        ops::layer_norm(*x, w.get(), w.get(), 1e-5, false);
      };
    });
    add(text("rms_norm/", n, 'x', n), "B/s", 8 * elements, [n] {
      return [x = share(normal(Shape(n, n))), w = share(normal(Shape(n)))] {
        ops::rms_norm(*x, w.get(), 1e-6, false);
      };
    });
    add(text("layer_norm_backward/", n, 'x', n), "B/s", 12 * elements, [n] {
      auto x = share(normal(Shape(n, n)));
      auto w = share(normal(Shape(n)));
      auto f = share(ops::layer_norm(*x, w.get(), w.get(), 1e-5, true));
      return [=] { ops::layer_norm_backward(f->y, *x, w.get(), f->mean, f->rstd); };
    });
  }
});

}  // namespace
}  // namespace vectile::bench
