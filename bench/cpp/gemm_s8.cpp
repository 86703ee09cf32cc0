#include "ops/gemm_s8.h"

#include "bench.h"
#include "ops/gemm.h"

namespace vectile::bench {
namespace {

const bool registered = at_start([] {
  constexpr i64 kShapes[][3] = {{512, 512, 512},  {33, 65, 127},     {1, 3072, 768},
                                {8, 3072, 768},   {32, 3072, 768},   {128, 3072, 768},
                                {512, 3072, 768}, {1, 4096, 4096},   {8, 4096, 4096},
                                {32, 4096, 4096}, {128, 4096, 4096}, {512, 4096, 4096}};
  for (const auto& [m, n, k] : kShapes) {
    const double products = 2. * static_cast<double>(m * n * k);
    const std::string size = text(m, 'x', n, 'x', k);
    for (const DType left : {DType::i8, DType::u8})
      add(text("matmul_integer/", left, '/', size), "OP/s", products, [=, m = m, n = n, k = k] {
        return [a = share(integers(left, Shape(m, k), -128, 127)),
                b = share(integers(DType::i8, Shape(k, n), -128, 127))] {
          ops::matmul_integer(*a, *b, nullptr, nullptr);
        };
      });
    add("linear_quantized/" + size, "OP/s", products, [m = m, n = n, k = k] {
      std::shared_ptr<ops::QuantizedMatrix> weight = ops::quantize_weight(normal(Shape(n, k)));
      return [weight, x = share(normal(Shape(m, k)))] {
        ops::linear(*x, *weight, nullptr, Activation::none);
      };
    });
  }
});

}  // namespace
}  // namespace vectile::bench
