// Runs ops on every tier of this CPU, in float32 and float64, against float64 on the scalar tier.
// Inputs are the same numbers in both types, and every result must be the same bits on one thread
// and on three.
#pragma once

#include <deque>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "ops/common.h"

namespace vectile::sweep {

enum class Layout { rows, columns, strided, reversed };
constexpr Layout kLayouts[] = {Layout::rows, Layout::columns, Layout::strided, Layout::reversed};

// The operands of one run, alive as long as this object; the same draws whatever the type.
class Inputs {
 public:
  explicit Inputs(DType dtype, bool magnitudes = false) : dtype_(dtype), magnitudes_(magnitudes) {}
  DType dtype() const { return dtype_; }
  const TensorView& keep(Array array) { return kept_.emplace_back(std::move(array)); }

  // Uniform floats: their absolute values where an error bound is made of them.
  TensorView uniform(const Shape& shape, double low = -1, double high = 1);
  TensorView matrix(i64 rows, i64 columns, Layout layout);
  TensorView integers(DType dtype, const Shape& shape, i64 low, i64 high);
  TensorView matrix_of_bytes(DType dtype, i64 rows, i64 columns, Layout layout);

 private:
  TensorView laid_out(i64 rows, i64 columns, Layout layout,
                      const std::function<TensorView(const Shape&)>& make);
  DType dtype_;
  bool magnitudes_;
  std::mt19937 engine_{7};
  std::deque<Array> kept_;
};

class Outputs {
 public:
  void add(Array array) {
    if (array.data) arrays_.push_back(contiguous_copy(array));
  }
  const std::vector<Array>& arrays() const { return arrays_; }

 private:
  static Array contiguous_copy(const TensorView& x);
  std::vector<Array> arrays_;
};

using Run = std::function<void(Inputs&, Outputs&)>;

// |got - exact| <= bound eps max(1, |exact|), for inputs of about 1.
void expect_close(const std::string& what, double bound, const Run& run);
// |got - exact| <= bound, in float32.
void expect_within(const std::string& what, double bound, const Run& run);
// |got - exact| <= (k + 2) eps |A| |B|: sums of k products, which `run` does to magnitudes as well.
void expect_products(const std::string& what, double k, const Run& run);
// Bytes equal to those of the scalar tier, in float32.
void expect_equal(const std::string& what, const Run& run);

// One element of an array of floats or integers.
double element(const TensorView& x, i64 i);

// f(name of the tier) with every tier of this CPU in turn.
void each_tier(const std::function<void(const std::string&)>& f);

// Lengths around the vectors and unrolled loops of every tier.
constexpr i64 kLengths[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 131, 1031};

}  // namespace vectile::sweep
