#include "ops/optimizer.h"

#include "bench.h"

namespace vectile::bench {
namespace {

const bool registered = at_start([] {
  for (const i64 n : {i64{1} << 12, i64{1} << 20}) {
    add(text("sgd/", n), "B/s", 20. * static_cast<double>(n), [n] {
      return [p = share(normal(Shape(n))), g = share(normal(Shape(n))),
              m = share(Array::zeros(DType::f32, Shape(n)))] {
        const ops::TensorList buffers{*m};
        ops::sgd({*p}, {*g}, &buffers, {.lr = 1e-3, .momentum = 0.9});
      };
    });
    add(text("adamw/", n), "B/s", 28. * static_cast<double>(n), [n] {
      return [p = share(normal(Shape(n))), g = share(normal(Shape(n))),
              m = share(Array::zeros(DType::f32, Shape(n))),
              v = share(Array::full(DType::f32, Shape(n), 1))] {
        ops::adam("adamw", {*p}, {*g}, {*m}, {*v}, {.lr = 1e-3, .step = 10, .decoupled = true});
      };
    });
  }
});

}  // namespace
}  // namespace vectile::bench
