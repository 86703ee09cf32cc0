#include "sweep.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace vectile::sweep {
namespace {

double epsilon(DType dtype) {
  return dtype == DType::f32 ? std::numeric_limits<float>::epsilon()
                             : std::numeric_limits<double>::epsilon();
}

Outputs outputs_of(const Run& run, DType dtype, bool magnitudes = false) {
  Inputs in(dtype, magnitudes);
  Outputs out;
  run(in, out);
  return out;
}

class OnTier {  // and back
 public:
  explicit OnTier(const std::string& tier) : before_(active_tier()) { set_tier(tier); }
  ~OnTier() { set_tier(before_); }

 private:
  std::string before_;
};

bool same_bytes(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.shape == b.shape &&
         std::memcmp(a.data, b.data, static_cast<std::size_t>(a.elements()) * item_size(a.dtype)) ==
             0;
}

void expect_same_on_threads(const Run& run, const Outputs& one) {
  set_num_threads(3);
  const Outputs three = outputs_of(run, DType::f32);
  set_num_threads(1);
  ASSERT_EQ(three.arrays().size(), one.arrays().size());
  for (std::size_t i = 0; i < one.arrays().size(); ++i)
    EXPECT_TRUE(same_bytes(one.arrays()[i], three.arrays()[i]))
        << "result " << i << " on 3 threads";
}

// Element by element against float64; NaN and infinity must be where they are exactly.
template <class Bound>
void expect_near(const Outputs& got, const Outputs& exact, Bound bound) {
  ASSERT_EQ(got.arrays().size(), exact.arrays().size());
  for (std::size_t a = 0; a < got.arrays().size(); ++a) {
    const Array &g = got.arrays()[a], &e = exact.arrays()[a];
    ASSERT_EQ(g.shape, e.shape) << "result " << a;
    int shown = 0;
    for (i64 i = 0; i < g.elements() && shown < 4; ++i) {
      const double x = element(g, i), y = element(e, i);
      const bool ok = std::isfinite(y) ? std::fabs(x - y) <= bound(a, i, y)
                                       : x == y || (std::isnan(x) && std::isnan(y));
      EXPECT_TRUE(ok) << "result " << a << " of shape " << text(g.shape) << " at " << i << ": " << x
                      << " for " << y;
      shown += !ok;
    }
  }
}

// check(outputs, dtype) on every tier.
template <class Check>
void on_every_tier(const std::string& what, std::initializer_list<DType> dtypes, const Run& run,
                   Check check) {
  set_num_threads(1);
  each_tier([&](const std::string& tier) {
    for (const DType dtype : dtypes) {
      SCOPED_TRACE(text(what, ", ", dtype, " on ", tier));
      const Outputs got = outputs_of(run, dtype);
      check(got, dtype);
      if (dtype == DType::f32) expect_same_on_threads(run, got);
    }
  });
}

Outputs scalar_outputs(const Run& run, DType dtype, bool magnitudes = false) {
  const OnTier scalar("scalar");
  set_num_threads(1);
  return outputs_of(run, dtype, magnitudes);
}

}  // namespace

double element(const TensorView& x, i64 i) {
  switch (x.dtype) {
    case DType::f32:
      return x.as<float>()[i];
    case DType::f64:
      return x.as<double>()[i];
    case DType::i8:
      return x.as<std::int8_t>()[i];
    case DType::u8:
      return x.as<std::uint8_t>()[i];
    case DType::i32:
      return x.as<std::int32_t>()[i];
    default:
      ADD_FAILURE() << "no elements of " << text(x.dtype);
      return 0;
  }
}

void each_tier(const std::function<void(const std::string&)>& f) {
  for (const std::string& tier : supported_tiers()) {
    const OnTier on(tier);
    f(tier);
  }
}

Array Outputs::contiguous_copy(const TensorView& x) {
  Array copy = Array::empty(x.dtype, x.shape);
  copy_strided(x, copy);
  return copy;
}

TensorView Inputs::uniform(const Shape& shape, double low, double high) {
  Array a = Array::empty(dtype_, shape);
  std::uniform_real_distribution<float> draw(static_cast<float>(low), static_cast<float>(high));
  for (i64 i = 0; i < a.elements(); ++i) {
    float x = draw(engine_);
    if (magnitudes_) x = std::fabs(x);
    if (dtype_ == DType::f32)
      a.as<float>()[i] = x;
    else
      a.as<double>()[i] = x;
  }
  return keep(std::move(a));
}

TensorView Inputs::integers(DType dtype, const Shape& shape, i64 low, i64 high) {
  Array a = Array::empty(dtype, shape);
  std::uniform_int_distribution<i64> draw(low, high);
  for (i64 i = 0; i < a.elements(); ++i) {
    const i64 x = draw(engine_);
    if (item_size(dtype) == 1)
      a.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(x);
    else if (item_size(dtype) == 4)
      a.as<std::int32_t>()[i] = static_cast<std::int32_t>(x);
    else
      a.as<i64>()[i] = x;
  }
  return keep(std::move(a));
}

TensorView Inputs::laid_out(i64 rows, i64 columns, Layout layout,
                            const std::function<TensorView(const Shape&)>& make) {
  if (layout == Layout::rows) return make(Shape(rows, columns));
  if (layout == Layout::columns) {
    constexpr int order[] = {1, 0};
    return permuted(make(Shape(columns, rows)), order);
  }
  const bool strided = layout == Layout::strided;
  TensorView v = make(strided ? Shape(2 * rows, 3 * columns) : Shape(rows, columns));
  v.shape = Shape(rows, columns);
  if (strided) {
    v.strides[0] *= 2, v.strides[1] = 3;
  } else {
    v.data =
        v.as<char>() + static_cast<i64>(item_size(v.dtype)) * std::max<i64>(0, rows * columns - 1);
    v.strides[0] = -v.strides[0], v.strides[1] = -1;
  }
  return v;
}

TensorView Inputs::matrix(i64 rows, i64 columns, Layout layout) {
  return laid_out(rows, columns, layout, [&](const Shape& s) { return uniform(s); });
}

TensorView Inputs::matrix_of_bytes(DType dtype, i64 rows, i64 columns, Layout layout) {
  const i64 low = dtype == DType::i8 ? -128 : 0;
  return laid_out(rows, columns, layout,
                  [&](const Shape& s) { return integers(dtype, s, low, low + 255); });
}

void expect_close(const std::string& what, double bound, const Run& run) {
  const Outputs exact = scalar_outputs(run, DType::f64);
  on_every_tier(what, {DType::f32, DType::f64}, run, [&](const Outputs& got, DType dtype) {
    const double eps = epsilon(dtype);
    expect_near(got, exact, [&](std::size_t, i64, double y) {
      return bound * eps * std::max(1., std::fabs(y));
    });
  });
}

void expect_within(const std::string& what, double bound, const Run& run) {
  const Outputs exact = scalar_outputs(run, DType::f64);
  on_every_tier(what, {DType::f32}, run, [&](const Outputs& got, DType) {
    expect_near(got, exact, [&](std::size_t, i64, double) { return bound; });
  });
}

void expect_products(const std::string& what, double k, const Run& run) {
  const Outputs exact = scalar_outputs(run, DType::f64);
  const Outputs magnitude = scalar_outputs(run, DType::f64, true);
  on_every_tier(what, {DType::f32, DType::f64}, run, [&](const Outputs& got, DType dtype) {
    const double eps = epsilon(dtype);
    expect_near(got, exact, [&](std::size_t a, i64 i, double) {
      return (k + 2) * eps * element(magnitude.arrays()[a], i);
    });
  });
}

void expect_equal(const std::string& what, const Run& run) {
  const Outputs exact = scalar_outputs(run, DType::f32);
  on_every_tier(what, {DType::f32}, run, [&](const Outputs& got, DType) {
    ASSERT_EQ(got.arrays().size(), exact.arrays().size());
    for (std::size_t i = 0; i < got.arrays().size(); ++i)
      EXPECT_TRUE(same_bytes(got.arrays()[i], exact.arrays()[i])) << "result " << i;
  });
}

}  // namespace vectile::sweep
