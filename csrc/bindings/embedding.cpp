#include "ops/embedding.h"

#include "bindings/array.h"

namespace vectile {

void bind_embedding(py::module_& m) {
  define(
      m, "embedding",
      [](py::handle ids, py::handle weight) {
        const Input index(ids, "embedding", "ids"), table(weight, "embedding", "weight");
        return to_numpy(unlocked([&] { return ops::embedding(*index, *table); }));
      },
      py::arg("ids"), py::arg("weight"));
  define(
      m, "embedding_backward",
      [](py::handle grad, py::handle ids, i64 num_embeddings) {
        constexpr const char* op = "embedding_backward";
        const Input g(grad, op, "grad"), index(ids, op, "ids");
        return to_numpy(
            unlocked([&] { return ops::embedding_backward(*g, *index, num_embeddings); }));
      },
      py::arg("grad"), py::arg("ids"), py::arg("num_embeddings"));
}

}  // namespace vectile
