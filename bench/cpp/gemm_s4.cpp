#include "ops/gemm_s4.h"

#include "bench.h"
#include "ops/gemm.h"

namespace vectile::bench {
namespace {

const bool registered = at_start([] {
  constexpr i64 kShapes[][3] = {{1, 4096, 4096}, {8, 4096, 4096}, {128, 3072, 768}, {33, 65, 127}};
  for (const auto& [m, n, k] : kShapes)
    for (const i64 group : {32, 128}) {
      const double products = 2. * static_cast<double>(m * n * k);
      add(text("linear_4bit/", m, 'x', n, 'x', k, '/', group), "OP/s", products,
          [m = m, n = n, k = k, group] {
            std::shared_ptr<ops::Int4Matrix> weight =
                ops::quantize_weight_4bit(normal(Shape(n, k)), group, true);
            return [weight, x = share(normal(Shape(m, k)))] {
              ops::linear(*x, *weight, nullptr, Activation::none);
            };
          });
    }
});

}  // namespace
}  // namespace vectile::bench
