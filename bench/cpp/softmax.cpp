#include "ops/softmax.h"

#include "bench.h"

namespace vectile::bench {
namespace {

const bool registered = at_start([] {
  for (const i64 n : {128, 1024, 4096}) {
    const double elements = static_cast<double>(n * n);
    add(text("softmax/", n, 'x', n), "B/s", 8 * elements,
        [n] { return [x = share(normal(Shape(n, n)))] { ops::softmax(*x, -1, nullptr); }; });
    add(text("log_softmax/", n, 'x', n), "B/s", 8 * elements,
        [n] { return [x = share(normal(Shape(n, n)))] { ops::log_softmax(*x, -1, nullptr); }; });
    add(text("softmax_backward/", n, 'x', n), "B/s", 12 * elements, [n] {
      return [g = share(normal(Shape(n, n))),
              y = share(ops::softmax(normal(Shape(n, n)), -1, nullptr))] {
        ops::softmax_backward(*g, *y, -1);
      };
    });
  }
});

}  // namespace
}  // namespace vectile::bench
