#include "ops/conv.h"

#include "bench.h"

namespace vectile::bench {
namespace {

struct Size {
  const char* name;
  i64 n, c, size, m, kernel, stride, pad, groups;
};

const bool registered = at_start([] {
  constexpr Size kSizes[] = {{"3x3_c64_32", 8, 64, 32, 64, 3, 1, 1, 1},
                             {"3x3_c256_14", 8, 256, 14, 256, 3, 1, 1, 1},
                             {"5x5_c1_28", 16, 1, 28, 32, 5, 1, 0, 1},
                             {"4x4_stride2_c64_16", 32, 64, 16, 128, 4, 2, 1, 1},
                             {"depthwise_3x3_c64_32", 8, 64, 32, 64, 3, 1, 1, 64}};
  for (const Size& s : kSizes) {
    const i64 out = (s.size + 2 * s.pad - s.kernel) / s.stride + 1;
    const Shape x(s.n, s.c, s.size, s.size), y(s.n, s.m, out, out);
    const Shape w(s.m, s.c / s.groups, s.kernel, s.kernel);
    const ops::ConvSettings settings = {
        {s.stride, s.stride}, {s.pad, s.pad}, {s.pad, s.pad}, {1, 1}, s.groups};
    const double flops = 2. * static_cast<double>(y.elements() * w.elements() / s.m);
    add(text("conv2d/", s.name), "FLOP/s", flops, [=] {
      return [=, a = share(normal(x)), b = share(normal(w))] {
        ops::conv("conv2d", 2, *a, *b, nullptr, settings, Activation::none);
      };
    });
    add(text("conv2d_input_grad/", s.name), "FLOP/s", flops, [=] {
      return [=, g = share(normal(y)), b = share(normal(w))] {
        ops::conv_input_grad("conv2d_input_grad", 2, *g, *b, nullptr, x, settings,
                             Activation::none);
      };
    });
    add(text("conv2d_weight_grad/", s.name), "FLOP/s", flops, [=] {
      return [=, g = share(normal(y)), a = share(normal(x))] {
        ops::conv_weight_grad("conv2d_weight_grad", 2, *g, *a, w, settings);
      };
    });
  }
});

}  // namespace
}  // namespace vectile::bench
