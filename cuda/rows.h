// Rows that a block of threads works on together.
#pragma once

#include "device.h"
#include "runtime.h"

namespace vectile::cuda {

constexpr int kVectorBytes = 16;

template <class S>
struct alignas(kVectorBytes) Vector {
  static constexpr int size = kVectorBytes / sizeof(S);
  S at[size];
};

__device__ __forceinline__ bool is_aligned(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % kVectorBytes == 0;
}

// W adjacent elements, whole vectors of them, as far as there are n; zeros past them.
template <class S, int W>
__device__ __forceinline__ void load_adjacent(Computed<S> (&to)[W], const S* x, i64 n) {
  constexpr int size = Vector<S>::size;
  if (n >= W && is_aligned(x)) {
#pragma unroll
    for (int k = 0; k < W; k += size) {
      const Vector<S> v = *reinterpret_cast<const Vector<S>*>(x + k);
#pragma unroll
      for (int j = 0; j < size; ++j) to[k + j] = to_float(v.at[j]);
    }
  } else {
#pragma unroll
    for (int j = 0; j < W; ++j) to[j] = j < n ? to_float(x[j]) : Computed<S>(0);
  }
}
template <class S, int W>
__device__ __forceinline__ void store_adjacent(const Computed<S> (&from)[W], S* y, i64 n) {
  constexpr int size = Vector<S>::size;
  if (n >= W && is_aligned(y)) {
#pragma unroll
    for (int k = 0; k < W; k += size) {
      Vector<S> v;
#pragma unroll
      for (int j = 0; j < size; ++j) v.at[j] = from_float<S>(from[k + j]);
      *reinterpret_cast<Vector<S>*>(y + k) = v;
    }
  } else {
#pragma unroll
    for (int j = 0; j < W; ++j)
      if (j < n) y[j] = from_float<S>(from[j]);
  }
}

// A piece of a row in the registers of a block: KEEP vectors of adjacent elements a thread.
template <class S, int THREADS, int KEEP>
struct Piece {
  using T = Computed<S>;
  static constexpr int size = Vector<S>::size, count = KEEP * size;
  static constexpr int capacity = THREADS * count;
  T at[count];

  // The element of the piece that at[i] is.
  __device__ static int index(int i) {
    return (i / size * THREADS + static_cast<int>(threadIdx.x)) * size + i % size;
  }
  // The first n elements of x, n at most the capacity; `outside` past them.
  __device__ void load(const S* x, int n, T outside) {
    const bool whole = is_aligned(x);
#pragma unroll
    for (int k = 0; k < KEEP; ++k) {
      const int first = index(k * size);
      if (whole && first + size <= n) {
        const Vector<S> v = *reinterpret_cast<const Vector<S>*>(x + first);
#pragma unroll
        for (int j = 0; j < size; ++j) at[k * size + j] = to_float(v.at[j]);
      } else {
#pragma unroll
        for (int j = 0; j < size; ++j)
          at[k * size + j] = first + j < n ? T(to_float(x[first + j])) : outside;
      }
    }
  }
  __device__ void store(S* y, int n) const {
    const bool whole = is_aligned(y);
#pragma unroll
    for (int k = 0; k < KEEP; ++k) {
      const int first = index(k * size);
      if (whole && first + size <= n) {
        Vector<S> v;
#pragma unroll
        for (int j = 0; j < size; ++j) v.at[j] = from_float<S>(at[k * size + j]);
        *reinterpret_cast<Vector<S>*>(y + first) = v;
      } else {
#pragma unroll
        for (int j = 0; j < size; ++j)
          if (first + j < n) y[first + j] = from_float<S>(at[k * size + j]);
      }
    }
  }
};

// f(first element, length) for the pieces of a row; one piece where it fits the registers.
template <class P, class F>
__device__ __forceinline__ void over_pieces(i64 n, F&& f) {
  for (i64 first = 0; first < n; first += P::capacity)
    f(first, static_cast<int>(n - first < P::capacity ? n - first : P::capacity));
}

// f(Threads<N>{}) for the threads of a block that hold a row of n elements of S in KEEP vectors
// each, as far as there are so many.
template <int N>
struct Threads {
  static constexpr int value = N;
};
template <class S, int KEEP, class F>
void with_threads(i64 n, F&& f) {
  const i64 needed = ceil_div(n, KEEP * Vector<S>::size);
  if (needed <= 32) return f(Threads<32>{});
  if (needed <= 128) return f(Threads<128>{});
  if (needed <= 256) return f(Threads<256>{});
  f(Threads<1024>{});
}

}  // namespace vectile::cuda
