#include "cast.h"

#include "array.h"

namespace vectile::cuda {

void bind_cast(nb::module_& m) {
  m.def(
      "cast",
      [](nb::handle x, nb::handle dtype, std::uintptr_t stream) {
        const Input in(x, "cast", "x");
        const nb::str name(dtype.attr("name"));
        int t = 0;
        while (t < static_cast<int>(DType::other) &&
               std::string_view(dtype_name(static_cast<DType>(t))) != name.c_str())
          ++t;
        const OnDevice here("cast", stream, in);
        return to_python(unlocked([&] { return cast(*in, static_cast<DType>(t)); }));
      },
      nb::arg("x"), nb::arg("dtype"), nb::arg("stream") = 0);
}

}  // namespace vectile::cuda
