#include "ops/quantize.h"

#include "bench.h"

namespace vectile::bench {
namespace {

const bool registered = at_start([] {
  for (const i64 n : {128, 1024}) {
    const double traffic = 5. * static_cast<double>(n * n);
    const std::string size = text(n, 'x', n);
    add("quantize_linear/" + size, "B/s", traffic, [n] {
      return [x = share(normal(Shape(n, n))), scale = share(Array::full(DType::f32, Shape(), 0.05)),
              zero = share(integers(DType::i8, Shape(), 3, 3))] {
        ops::quantize_linear(*x, *scale, zero.get(), nullptr);
      };
    });
    add("dequantize_linear/" + size, "B/s", traffic, [n] {
      return [x = share(integers(DType::i8, Shape(n, n), -128, 127)),
              scale = share(Array::full(DType::f32, Shape(), 0.05))] {
        ops::dequantize_linear(*x, *scale, nullptr, nullptr);
      };
    });
    add("dynamic_quantize_linear/" + size, "B/s", traffic,
        [n] { return [x = share(normal(Shape(n, n)))] { ops::dynamic_quantize_linear(*x); }; });
  }
});

}  // namespace
}  // namespace vectile::bench
