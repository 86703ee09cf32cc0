#include "embedding.h"

#include "array.h"

namespace vectile::cuda {

void bind_embedding(nb::module_& m) {
  m.def(
      "embedding",
      [](nb::handle ids, nb::handle weight, std::uintptr_t stream) {
        constexpr const char* op = "embedding";
        const Input index(ids, op, "ids"), table(weight, op, "weight");
        const OnDevice here(op, stream, index, table);
        return to_python(unlocked([&] { return embedding(*index, *table); }));
      },
      nb::arg("ids"), nb::arg("weight"), nb::arg("stream") = 0);
  m.def(
      "embedding_backward",
      [](nb::handle grad, nb::handle ids, i64 num_embeddings, std::uintptr_t stream) {
        constexpr const char* op = "embedding_backward";
        const Input g(grad, op, "grad"), index(ids, op, "ids");
        const OnDevice here(op, stream, g, index);
        return to_python(unlocked([&] { return embedding_backward(*g, *index, num_embeddings); }));
      },
      nb::arg("grad"), nb::arg("ids"), nb::arg("num_embeddings"), nb::arg("stream") = 0);
}

}  // namespace vectile::cuda
