// The instructions that device.h declares, by what the PTX manual says of each. A copy arrives at
// the wait that it must have arrived at, no sooner.
#pragma once

namespace vectile::cuda {

namespace emulated {

struct Copies {
  static constexpr int kMost = 256;
  struct Copy {
    char* to;
    const char* from;
    int bytes;
    bool valid;
    int group;
  };
  Copy copies[kMost];
  int count = 0, groups = 0;

  void wait(int pending) {
    int kept = 0;
    for (int i = 0; i < count; ++i) {
      const Copy& c = copies[i];
      if (c.group >= groups - pending)
        copies[kept++] = c;
      else if (c.valid)
        std::memcpy(c.to, c.from, static_cast<std::size_t>(c.bytes));
      else
        std::memset(c.to, 0, static_cast<std::size_t>(c.bytes));
    }
    count = kept;
  }
};
Copies& copies();  // of the running thread

// Element i of the four-byte registers that lane `of` brings, each a piece of S.
template <class S, int N>
struct Registers {
  unsigned r[N];
  S at(int reg, int i) const {
    S x;
    std::memcpy(&x, reinterpret_cast<const char*>(&r[reg]) + i * sizeof(S), sizeof(S));
    return x;
  }
};

template <class A, class B>
struct Operands {
  Registers<A, 4> a;
  Registers<B, 2> b;
};

// x cut off to a float32, as tensor cores do with their sums (Ootomo and Yokota, arXiv 2203.03341).
inline float cut_off(double x) {
  const auto y = static_cast<float>(x);
  return std::fabs(y) < INFINITY && std::fabs(static_cast<double>(y)) > std::fabs(x)
             ? std::nextafter(y, 0.f)
             : y;
}
inline int cut_off(int x) { return x; }

// d += a b, exactly as the comment in device.h lays them out.
template <class A, class B, class D, class Value>
void multiply_add_as(D (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], Value value) {
  constexpr int part = 4 / sizeof(A), half = 4 * part;  // elements of a register, of half of k
  Operands<A, B> mine;
  std::memcpy(mine.a.r, a, sizeof a);
  std::memcpy(mine.b.r, b, sizeof b);
  const int lane = self().lane, g = lane / 4, t = lane % 4;
  struct Result {
    D d[4];
  };
  const Result result = exchange(mine, [&](auto of) {
    Operands<A, B> left[4], right[2][4];  // of row g and column 2t, 2t + 1
    for (int owner = 0; owner < 4; ++owner) {
      left[owner] = of(4 * g + owner);
      for (int j = 0; j < 2; ++j) right[j][owner] = of(4 * (2 * t + j) + owner);
    }
    Result y;
    for (int i = 0; i < 4; ++i) {
      std::conditional_t<std::is_same_v<D, float>, double, D> sum = d[i];
      for (int k = 0; k < 2 * half; ++k) {
        const int high = k / half, owner = k % half / part, element = k % part;
        const A x = left[owner].a.at(i / 2 + 2 * high, element);
        const B w = right[i % 2][owner].b.at(high, element);
        sum += value(x) * value(w);
      }
      y.d[i] = cut_off(sum);
    }
    return y;
  });
  std::memcpy(d, result.d, sizeof d);
}

template <bool transposed>
void load_matrices_as(unsigned (&r)[4], const void* row) {
  const int lane = self().lane, g = lane / 4, t = lane % 4;
  if (reinterpret_cast<std::uintptr_t>(row) % 16) throw std::logic_error("emulated: unaligned row");
  struct Result {
    unsigned r[4];
  };
  const Result result = exchange(row, [&](auto of) {
    Result y;
    for (int i = 0; i < 4; ++i) {
      if constexpr (transposed) {
        for (int k = 0; k < 2; ++k)
          std::memcpy(reinterpret_cast<char*>(&y.r[i]) + 2 * k,
                      static_cast<const char*>(of(8 * i + 2 * t + k)) + 2 * g, 2);
      } else {
        std::memcpy(&y.r[i], static_cast<const char*>(of(8 * i + g)) + 4 * t, 4);
      }
    }
    return y;
  });
  std::memcpy(r, result.r, sizeof r);
}

inline float truncated_tf32(float x) { return __uint_as_float(__float_as_uint(x) & ~0x1fffu); }

}  // namespace emulated

template <int bytes>
void copy_async(void* shared, const void* global, bool valid) {
  emulated::Copies& c = emulated::copies();
  if (reinterpret_cast<std::uintptr_t>(shared) % bytes ||
      (valid && reinterpret_cast<std::uintptr_t>(global) % bytes) ||
      c.count == emulated::Copies::kMost)
    throw std::logic_error("emulated: unaligned copies, or more than there is room for");
  c.copies[c.count++] = {static_cast<char*>(shared), static_cast<const char*>(global), bytes, valid,
                         c.groups};
}
inline void copy_commit() { ++emulated::copies().groups; }
template <int pending>
void copy_wait() {
  emulated::copies().wait(pending);
}

inline void multiply_add(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], BFloat16) {
  emulated::multiply_add_as<BFloat16, BFloat16>(d, a, b, [](BFloat16 x) { return to_float(x); });
}
inline void multiply_add(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], Float16) {
  emulated::multiply_add_as<Float16, Float16>(d, a, b, [](Float16 x) { return to_float(x); });
}
inline void multiply_add(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], Tf32) {
  emulated::multiply_add_as<float, float>(d, a, b, emulated::truncated_tf32);
}
template <class A, class B>
void multiply_add(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], A, B) {
  emulated::multiply_add_as<A, B>(d, a, b, [](auto x) { return static_cast<int>(x); });
}

inline void load_matrices(unsigned (&r)[4], const void* row) {
  emulated::load_matrices_as<false>(r, row);
}
inline void load_matrices_transposed(unsigned (&r)[4], const void* row) {
  emulated::load_matrices_as<true>(r, row);
}

template <class S>
unsigned pack(float low, float high) {
  return from_float<S>(low).bits | static_cast<unsigned>(from_float<S>(high).bits) << 16;
}

inline float largest(float a, float b) { return Max{}(a, b); }

inline float exp2_flushed(float x) { return x < -126 ? 0 : std::exp2(x); }

inline float reciprocal_flushed(float x) { return 1 / x; }
inline float quotient(float a, float b) { return a / b; }

inline float to_tf32(float x) {
  const unsigned u = __float_as_uint(x);
  return (u & 0x7f800000) == 0x7f800000 ? x : __uint_as_float((u + 0x1000) & ~0x1fffu);
}

}  // namespace vectile::cuda
