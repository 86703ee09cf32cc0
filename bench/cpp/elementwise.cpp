#include "ops/elementwise.h"

#include "bench.h"

namespace vectile::bench {
namespace {

const bool registered = at_start([] {
  for (const i64 n : {128, 1024}) {
    const double elements = static_cast<double>(n * n);
    const auto unary = [&](const char* label, const ops::FloatOp<ops::UnaryKernel>& op) {
      add(text(label, '/', n, 'x', n), "B/s", 8 * elements,
          [n, &op] { return [&op, x = share(normal(Shape(n, n)))] { ops::unary(op, *x); }; });
    };
    for (const auto& op : ops::kUnary) unary(op.name, op);
    unary("gelu", ops::kGelu[0]);
    unary("gelu_tanh", ops::kGelu[1]);
    for (const auto& op : ops::kBinary)
      add(text(op.name, '/', n, 'x', n), "B/s", 12 * elements, [n, &op] {
        return [&op, a = share(normal(Shape(n, n))), b = share(normal(Shape(n, n)))] {
          ops::binary(op, *a, *b);
        };
      });
    add(text("gelu_backward/", n, 'x', n), "B/s", 12 * elements, [n] {
      return [g = share(normal(Shape(n, n))), x = share(normal(Shape(n, n)))] {
        ops::gradient(ops::kGeluGradient[0], *g, *x, "x");
      };
    });
  }
});

}  // namespace
}  // namespace vectile::bench
