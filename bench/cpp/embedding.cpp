#include "ops/embedding.h"

#include "bench.h"

namespace vectile::bench {
namespace {

const bool registered = at_start([] {
  constexpr i64 kRows = 50257, kWidth = 768, kIds = 1024;
  add(text("embedding/", kIds, " of ", kRows, 'x', kWidth), "B/s", 8. * kIds * kWidth, [] {
    return [ids = share(integers(DType::i64, Shape(kIds), 0, kRows - 1)),
            table = share(normal(Shape(kRows, kWidth)))] { ops::embedding(*ids, *table); };
  });
  add(text("embedding_backward/", kIds, " of ", 256, 'x', kWidth), "B/s", 4. * kIds * kWidth, [] {
    return
        [ids = share(integers(DType::i64, Shape(kIds), 0, 255)),
         grad = share(normal(Shape(kIds, kWidth)))] { ops::embedding_backward(*grad, *ids, 256); };
  });
});

}  // namespace
}  // namespace vectile::bench
