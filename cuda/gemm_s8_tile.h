// Products of bytes on tensor cores: a block's tile of C from rows of A and
// columns of B, both contiguous along k, that stream through a ring of stages
// in shared memory.
//
// A stage holds 64 bytes along k of each line (row of A, column of B), in
// chunks of 16. Chunk c of line l lies in place c ^ (l / 2 % 4): the eight that
// a matrix load reads together, and the eight that two quarters of a warp
// write, lie in different banks.
#pragma once

#include "epilogue.h"

namespace vectile::cuda {

constexpr int kStepBytes8 = 64, kChunks8 = kStepBytes8 / kVectorBytes;

// The part of C that a block computes, by how many warps, in how many stages;
// BLOCKS are to fit a multiprocessor.
template <int M, int N, int WARPS_M, int WARPS_N, int STAGES, int BLOCKS>
struct TileS8 {
  static constexpr int m = M, n = N, warps_n = WARPS_N, stages = STAGES, blocks = BLOCKS;
  static constexpr int warps = WARPS_M * WARPS_N, threads = warps * kWarp;
  static constexpr int warp_m = M / WARPS_M, warp_n = N / WARPS_N;
  static constexpr int stage_bytes = (M + N) * kStepBytes8, bytes = STAGES * stage_bytes;
};
using LargeS8 = TileS8<128, 128, 2, 4, 4, 2>;
using SmallS8 = TileS8<32, 32, 2, 2, 8, 4>;

// Element i of an array of one axis and any type that zero points and scales
// come in.
template <class T>
struct Numbers {
  const void* data = nullptr;  // null for zeros
  DType dtype = DType::other;
  i64 stride = 0;

  Numbers() = default;
  explicit Numbers(const TensorView& v)  // () and (1,) are the same number everywhere
      : data(v.data), dtype(v.dtype), stride(v.elements() == 1 ? 0 : v.strides[0]) {}
  __device__ T operator[](i64 i) const {
    if (!data) return T(0);
    switch (dtype) {
      case DType::i8:
        return read<std::int8_t>(i);
      case DType::u8:
        return read<std::uint8_t>(i);
      case DType::i32:
        return read<std::int32_t>(i);
      case DType::i64:
        return read<i64>(i);
      case DType::f64:
        return read<double>(i);
      case DType::f16:
        return read<Float16>(i);
      case DType::bf16:
        return read<BFloat16>(i);
      default:
        return read<float>(i);
    }
  }

 private:
  template <class S>
  __device__ T read(i64 i) const {
    const S x = static_cast<const S*>(data)[i * stride];
    if constexpr (widens<S>)
      return static_cast<T>(to_float(x));
    else
      return static_cast<T>(x);
  }
};

// `count` matrices of lines of k bytes; k is a multiple of 16 or zeros lie up
// to the next one, and lines and matrices start at multiples of 16 bytes.
// Strides in bytes, of a batch those by its axes, the last first.
struct LinesS8 {
  const char* data;
  i64 count, line;
  i64 batch[kMaxDims];
};

struct ProductS8 {
  LinesS8 a, b;
  i64 k, batches;
  int axes;
  i64 size[kMaxDims];
  Numbers<int> a_zero, b_zero;  // of the rows of A, the columns of B

  __device__ const char* start(const LinesS8& x, i64 index) const {
    const char* p = x.data;
    for (int d = 0; d < axes; ++d) {
      p += index % size[d] * x.batch[d];
      index /= size[d];
    }
    return p;
  }
};

// The chunks of LINES lines that a thread copies in each step: one each of
// lines `apart` from each other.
template <int LINES, int THREADS>
struct CopierS8 {
  static constexpr int apart = THREADS / kChunks8, count = LINES / apart;
  static_assert(LINES % apart == 0);
  const char* from;
  i64 hop;    // from a chunk to the thread's next
  int lines;  // of the block that are inside

  __device__ static int offset(int line, int chunk) {
    return (line * kChunks8 + (chunk ^ (line / 2 % kChunks8))) * kVectorBytes;
  }
  __device__ static int line() { return static_cast<int>(threadIdx.x) / kChunks8; }
  __device__ static int chunk() { return static_cast<int>(threadIdx.x) % kChunks8; }

  __device__ CopierS8(const char* data, const LinesS8& x, i64 first)
      : from(data + (first + line()) * x.line + chunk() * kVectorBytes),
        hop(apart * x.line),
        lines(static_cast<int>(x.count - first < LINES ? x.count - first : LINES)) {}
  // Starts the copies of a step with `left` bytes along k; zeros outside.
  __device__ void copy(char* stage, i64 left) {
    const bool inside = chunk() * kVectorBytes < left;
#pragma unroll
    for (int i = 0; i < count; ++i)
      copy_async(stage + offset(line() + i * apart, chunk()), from + i * hop,
                 inside && line() + i * apart < lines);
    from += kStepBytes8;
  }
};

// What finishes the lines of a block's tile: zero points, and what Finish wants
// of each. A Finish makes value() of an exact sum and its line's parameters,
// and result() of that for the array y.
template <class Finish, class Tile>
struct ParametersS8 {
  unsigned a_zero[Tile::m], b_zero[Tile::n];
  typename Finish::Row row[Tile::m];
  typename Finish::Column column[Tile::n];

  __device__ void load(const ProductS8& p, const Finish& f, i64 m0, i64 n0) {
    for (int i = static_cast<int>(threadIdx.x); i < Tile::m && m0 + i < p.a.count;
         i += Tile::threads)
      a_zero[i] = static_cast<unsigned>(p.a_zero[m0 + i]), row[i] = f.row(m0 + i);
    for (int j = static_cast<int>(threadIdx.x); j < Tile::n && n0 + j < p.b.count;
         j += Tile::threads)
      b_zero[j] = static_cast<unsigned>(p.b_zero[n0 + j]), column[j] = f.column(n0 + j);
  }
};

// A warp's sums: C, and those of the rows of A and the columns of B that zero
// points want.
template <class A, class B, class Tile, bool row_sums>
struct SumsS8 {
  static constexpr int rows = Tile::warp_m / 16, columns = Tile::warp_n / 8;
  static constexpr int pitch = Tile::warp_n + 8;  // of scratch: eight lanes' pairs apart
  int at[rows][columns][4] = {};
  int row[rows][2] = {};  // of rows g and g + 8, as registers of A hold them
  int column[columns] = {};

  // Adds the products of a stage; the warp's lines start at a and b.
  __device__ void add(const char* stage, int first_a, int first_b) {
    using Place = CopierS8<Tile::m, Tile::threads>;
    const char* const stage_b = stage + Tile::m * kStepBytes8;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
    for (int chunk = 0; chunk < kChunks8; chunk += 2) {
      unsigned right[columns][2];
#pragma unroll
      for (int j = 0; j < columns; j += 2) {
        unsigned r[4];
        load_matrices(r, stage_b + Place::offset(first_b + 8 * j + lane / 16 * 8 + lane % 8,
                                                 chunk + lane / 8 % 2));
        right[j][0] = r[0], right[j][1] = r[1], right[j + 1][0] = r[2], right[j + 1][1] = r[3];
      }
#pragma unroll
      for (int j = 0; j < columns; ++j)
        column[j] = add_bytes(add_bytes(column[j], right[j][0], B{}), right[j][1], B{});
#pragma unroll
      for (int i = 0; i < rows; ++i) {
        unsigned left[4];
        load_matrices(left, stage + Place::offset(first_a + 16 * i + lane % 16, chunk + lane / 16));
        if constexpr (row_sums)
#pragma unroll
          for (int r = 0; r < 4; ++r) row[i][r % 2] = add_bytes(row[i][r % 2], left[r], A{});
#pragma unroll
        for (int j = 0; j < columns; ++j) multiply_add(at[i][j], left, right[j], A{}, B{});
      }
    }
  }

  // Each value with the zero points taken out,
  //   sum (a - x) (b - y) = sum a b - x sum b - y sum a + k x y, modulo 2^32,
  // goes by way of the warp's scratch memory, from where lanes take whole
  // vectors of a row.
  template <class Finish>
  __device__ void finish(const ProductS8& p, const Finish& f, const ParametersS8<Finish, Tile>& of,
                         typename Finish::Value* scratch, i64 batch, i64 m0, i64 n0, int first_a,
                         int first_b) {
    using Value = typename Finish::Value;
    using Y = typename Finish::Y;
    constexpr int size = Vector<Y>::size, in_row = Tile::warp_n / size;
    const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
    const unsigned k = static_cast<unsigned>(p.k);
#pragma unroll
    for (int j = 0; j < columns; ++j) column[j] = over_quad(column[j]);  // of column g
#pragma unroll
    for (int i = 0; i < rows; ++i) {
      __syncwarp();
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int at_row = first_a + 16 * i + 8 * h + g;
        const unsigned x = of.a_zero[at_row];
        const unsigned sum_a = row_sums ? static_cast<unsigned>(over_quad(row[i][h])) : 0;
        const auto row_of = of.row[at_row];
        Value* const to = scratch + (8 * h + g) * pitch + 2 * t;
#pragma unroll
        for (int j = 0; j < columns; ++j)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int at_column = first_b + 8 * j + 2 * t + e;
            const unsigned y = of.b_zero[at_column];
            const auto sum_b = static_cast<unsigned>(__shfl_sync(kAll, column[j], 4 * (2 * t + e)));
            const unsigned sum =
                static_cast<unsigned>(at[i][j][2 * h + e]) - x * sum_b - y * sum_a + k * x * y;
            to[8 * j + e] = f.value(static_cast<int>(sum), row_of, of.column[at_column]);
          }
      }
      __syncwarp();
#pragma unroll 1
      for (int v = lane; v < 16 * in_row; v += kWarp) {
        const int row_in = v / in_row, column_in = v % in_row * size;
        const i64 r = m0 + first_a + 16 * i + row_in, c = n0 + first_b + column_in;
        if (r >= p.a.count || c >= p.b.count) continue;
        constexpr int part = Vector<Value>::size;
        const auto* from =
            reinterpret_cast<const Vector<Value>*>(scratch + row_in * pitch + column_in);
        Vector<Y> y;
#pragma unroll
        for (int q = 0; q < size / part; ++q) {
          const Vector<Value> held = from[q];
#pragma unroll
          for (int e = 0; e < part; ++e) y.at[q * part + e] = f.result(held.at[e]);
        }
        const i64 left = p.b.count - c;
        store_vector(f.y + (batch * p.a.count + r) * p.b.count + c, y,
                     static_cast<int>(left < size ? left : size));
      }
    }
  }

 private:
  __device__ static int over_quad(int x) {
    x += __shfl_xor_sync(kAll, x, 1);
    return x + __shfl_xor_sync(kAll, x, 2);
  }
};

constexpr int kAddThreads8 = 128;
constexpr i64 kGroupS8 = 8;  // rows of blocks that run together, for the L2 cache

template <class A, class B, class Tile, bool row_sums, class Finish>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    gemm_s8_kernel(ProductS8 p, Finish f) {
  const i64 block_rows = ceil_div(p.a.count, Tile::m), block_columns = ceil_div(p.b.count, Tile::n);
  const i64 in_group = kGroupS8 * block_columns, first = blockIdx.x / in_group * kGroupS8;
  const i64 height = block_rows - first < kGroupS8 ? block_rows - first : kGroupS8;
  const i64 within = blockIdx.x % in_group;
  const i64 m0 = (first + within % height) * Tile::m, n0 = within / height * Tile::n;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int first_a = warp / Tile::warps_n * Tile::warp_m;
  const int first_b = warp % Tile::warps_n * Tile::warp_n;
  char* const memory = dynamic_memory();
  __shared__ ParametersS8<Finish, Tile> parameters;
  parameters.load(p, f, m0, n0);
  for (i64 z = blockIdx.z; z < p.batches; z += gridDim.z) {
    CopierS8<Tile::m, Tile::threads> a(p.start(p.a, z), p.a, m0);
    CopierS8<Tile::n, Tile::threads> b(p.start(p.b, z), p.b, n0);
    SumsS8<A, B, Tile, row_sums> sums;
    i64 left = p.k;
    int to = 0, from = 0;
    // A group of copies a step, empty past the last: that of step i has arrived
    // when at most stages - 2 later ones are under way.
    const auto start = [&] {
      if (left > 0) {
        char* const stage = memory + to * Tile::stage_bytes;
        a.copy(stage, left);
        b.copy(stage + Tile::m * kStepBytes8, left);
      }
      copy_commit();
      left -= kStepBytes8;
      to = to + 1 == Tile::stages ? 0 : to + 1;
    };
    for (int s = 0; s < Tile::stages - 1; ++s) start();
    for (i64 k = 0; k < p.k; k += kStepBytes8) {
      copy_wait<Tile::stages - 2>();
      __syncthreads();  // all have the step's copies, and have left the stage
                        // that start() fills
      start();
      sums.add(memory + from * Tile::stage_bytes, first_a, first_b);
      from = from + 1 == Tile::stages ? 0 : from + 1;
    }
    copy_wait<0>();
    __syncthreads();  // the stages are free
    using Sums = SumsS8<A, B, Tile, row_sums>;
    using Value = typename Finish::Value;
    static_assert(sizeof(Value) * 16 * Sums::pitch * Tile::warps <= Tile::bytes);
    sums.finish(p, f, parameters, reinterpret_cast<Value*>(memory) + warp * 16 * Sums::pitch, z, m0,
                n0, first_a, first_b);
    __syncthreads();
  }
}

// What becomes of the exact sums of a product whose k was cut into parts, (parts, m, n).
template <class Finish>
__global__ void __launch_bounds__(kAddThreads8)
    add_parts_s8_kernel(const int* sums, int parts, i64 m, i64 n, Finish f) {
  for (i64 i = i64{blockIdx.x} * kAddThreads8 + threadIdx.x; i < m * n;
       i += i64{gridDim.x} * kAddThreads8) {
    unsigned sum = 0;
#pragma unroll 4
    for (int part = 0; part < parts; ++part) sum += static_cast<unsigned>(sums[part * m * n + i]);
    f.y[i] = f.result(f.value(static_cast<int>(sum), f.row(i / n), f.column(i % n)));
  }
}

}  // namespace vectile::cuda
