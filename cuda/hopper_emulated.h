// The instructions that hopper.h declares, by what the PTX manual says of each. Boxes arrive when
// nothing else is left to do, the newest or the oldest, and until then their place holds NaNs;
// products are made when they are waited for.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

namespace vectile::cuda {

namespace emulated {

// What a tensor map and a barrier hold.
struct MapContents {
  const char* data;
  i64 size[5], stride[4];
  int item;
};
static_assert(sizeof(MapContents) <= sizeof(TensorMap));

struct BarrierContents {
  std::int32_t bytes : 24;
  std::uint32_t phase : 8;
  std::uint16_t pending, arrivals;
};
static_assert(sizeof(BarrierContents) == sizeof(Barrier));

// Products under way of the running thread.
class Products {
 public:
  void add(std::function<void()> f) { all_.push_back({std::move(f), groups_}); }
  void commit() { ++groups_; }
  // Makes those of all groups but the newest `pending`.
  void wait(int pending) {
    std::size_t made = 0;
    while (made < all_.size() && all_[made].group < groups_ - pending) all_[made++].make();
    all_.erase(all_.begin(), all_.begin() + static_cast<std::ptrdiff_t>(made));
  }

 private:
  struct Product {
    std::function<void()> make;
    int group;
  };
  std::vector<Product> all_;
  int groups_ = 0;
};
Products& products();
Products& bulk();  // stores and sums under way of the running thread

void change_barrier(Barrier* b, int arrived, int bytes);
void start_box(void* to, const TensorMap& map, const Coordinates& from, Barrier* b,
               unsigned blocks);

// Where a byte of a described operand lies: `row` counts its rows of 128 bytes, the next box of
// `across` operands being 64 rows on.
inline const char* described(std::uint64_t descriptor, unsigned offset) {
  return dynamic_memory() + swizzled(static_cast<unsigned>(descriptor & 0x3fff) * 16 + offset);
}

// Elements 0 to n - 1 along k of a line.
template <class S, bool across>
void load_line(std::uint64_t descriptor, int line, S* to) {
  if (descriptor >> 62 != 1 || (descriptor >> 16 & 0xc000) || (descriptor >> 49 & 7))
    throw std::logic_error("emulated: not an operand of boxes");
  const auto leading = static_cast<unsigned>(descriptor >> 16 & 0x3fff) * 16;
  const auto eight_rows = static_cast<unsigned>(descriptor >> 32 & 0x3fff) * 16;
  const auto l = static_cast<unsigned>(line);
  for (unsigned i = 0; i < 32 / sizeof(S); ++i) {
    const unsigned byte = i * sizeof(S);
    const unsigned offset = across
                                ? l / 64 * leading + i / 8 * eight_rows + i % 8 * 128 + l % 64 * 2
                                : l / 8 * eight_rows + l % 8 * 128 + byte;
    std::memcpy(to + i, described(descriptor, offset), sizeof(S));
  }
}

// to = f(to, from), elementwise.
template <class F>
void start_bulk(float* to, const float* from, int bytes, F f) {
  if (bytes % 16 || reinterpret_cast<std::uintptr_t>(to) % 16 ||
      reinterpret_cast<std::uintptr_t>(from) % 16)
    throw std::logic_error("emulated: a bulk copy of whole 16 bytes");
  bulk().add([=] {
    for (int i = 0; i < bytes / 4; ++i) to[i] = f(to[i], from[i]);
  });
  bulk().commit();
}

inline float number(float x) { return __uint_as_float(__float_as_uint(x) & ~0x1fffu); }
inline float number(Float16 x) { return to_float(x); }
inline float number(BFloat16 x) { return to_float(x); }
inline int number(std::int8_t x) { return x; }
inline int number(std::uint8_t x) { return x; }

// d += a b, with a's two rows of this thread.
template <class B, int N, bool b_across, class A, class D>
void add_product(D* d, const A (&a)[2][32 / sizeof(A)], std::uint64_t b) {
  const int t = self().lane % 4;
  for (int j = 0; j < N / 8; ++j)
    for (int c = 0; c < 2; ++c) {
      B column[32 / sizeof(B)];
      load_line<B, b_across>(b, 8 * j + 2 * t + c, column);
      for (int row = 0; row < 2; ++row) {
        D& to = d[4 * j + 2 * row + c];
        std::conditional_t<std::is_same_v<D, float>, double, D> sum = to;
        for (unsigned i = 0; i < 32 / sizeof(B); ++i) sum += number(a[row][i]) * number(column[i]);
        to = cut_off(sum);
      }
    }
}

// The thread's two rows of an operand in boxes.
template <class A, bool across>
void load_rows(std::uint64_t a, int thread, A (&rows)[2][32 / sizeof(A)]) {
  const int row = thread / kWarp * 16 + thread % kWarp / 4;
  for (int i = 0; i < 2; ++i) load_line<A, across>(a, row + 8 * i, rows[i]);
}

template <class S>
struct Stored {
  using type = S;
};
template <>
struct Stored<Tf32> {
  using type = float;
};

}  // namespace emulated

inline unsigned shared_address(const void* p) {
  return static_cast<unsigned>(static_cast<const char*>(p) - dynamic_memory());
}

inline void barrier_init(Barrier* b, int arrivals) {
  const auto n = static_cast<std::uint16_t>(arrivals);
  const emulated::BarrierContents contents{0, 0, n, n};
  std::memcpy(b, &contents, sizeof contents);
}
inline void barrier_init_end() {}
inline void barrier_arrive(Barrier* b) { emulated::change_barrier(b, 1, 0); }
inline void barrier_arrive(Barrier* b, int block) {
  emulated::change_barrier(reinterpret_cast<Barrier*>(emulated::in_block(b, block)), 1, 0);
}
inline void barrier_expect(Barrier* b, int bytes) { emulated::change_barrier(b, 1, bytes); }
inline void barrier_wait(Barrier* b, int parity) {
  emulated::wait_until([=] {
    emulated::BarrierContents contents;
    std::memcpy(&contents, b, sizeof contents);
    return static_cast<int>(contents.phase & 1) != parity;
  });
}

inline void copy_box(void* to, const TensorMap& map, const Coordinates& from, Barrier* b,
                     unsigned blocks) {
  emulated::start_box(to, map, from, b, blocks);
}
inline void copy_box(void* to, const TensorMap& map, const Coordinates& from, Barrier* b) {
  copy_box(to, map, from, b, 1u << block_in_cluster());
}

inline void bulk_store(float* to, const float* from, int bytes) {
  emulated::start_bulk(to, from, bytes, [](float, float x) { return x; });
}
inline void bulk_add(float* to, const float* from, int bytes) {
  emulated::start_bulk(to, from, bytes, [](float y, float x) { return y + x; });
}
inline void bulk_wait_read() { bulk_wait(); }
inline void bulk_wait() { emulated::bulk().wait(0); }

// Blocks run one after the other: what has not passed never will.
inline void turn_wait(const unsigned* turn, unsigned passed) {
  if (*turn != passed) throw std::logic_error("emulated: a turn that does not come");
}
inline void turn_pass(unsigned* turn) { ++*turn; }

inline int block_in_cluster() { return emulated::self().block_in_cluster; }
inline void cluster_barrier() { emulated::cluster_barrier(); }
inline void stores_end() {}
template <int count>
void take_registers() {}
template <int count>
void give_registers() {}

inline void products_begin() {}
inline void products_commit() { emulated::products().commit(); }
template <int pending>
void products_wait() {
  emulated::products().wait(pending);
  emulated::warp_barrier();
}
template <int N>
void products_done(float (&)[N]) {}
template <int N>
void products_done(int (&)[N]) {}

template <class S, int N, bool a_across, bool b_across, bool add>
void warpgroup_multiply_add(float (&d)[N / 2], std::uint64_t a, std::uint64_t b) {
  using Element = typename emulated::Stored<S>::type;
  static_assert(sizeof(Element) == 2 || !(a_across || b_across));
  emulated::products().add([&d, a, b, thread = static_cast<int>(threadIdx.x) % kWarpgroup] {
    Element rows[2][32 / sizeof(Element)];
    if (!add) std::fill_n(d, N / 2, 0.0f);
    emulated::load_rows<Element, a_across>(a, thread, rows);
    emulated::add_product<Element, N, b_across>(d, rows, b);
  });
}

template <class A, class B, int N>
void warpgroup_multiply_add(int (&d)[N / 2], std::uint64_t a, std::uint64_t b) {
  emulated::products().add([&d, a, b, thread = static_cast<int>(threadIdx.x) % kWarpgroup] {
    A rows[2][32];
    emulated::load_rows<A, false>(a, thread, rows);
    emulated::add_product<B, N, false>(d, rows, b);
  });
}

template <class S, int N, bool b_across>
void warpgroup_multiply_add(float (&d)[N / 2], const unsigned (&a)[4], std::uint64_t b) {
  // The two rows of this thread lie in the registers of the four lanes that share them.
  struct Rows {
    S at[2][16];
  };
  struct Mine {
    unsigned a[4];
  } mine;
  std::memcpy(mine.a, a, sizeof a);
  const int first = emulated::self().lane / 4 * 4;
  const Rows rows = emulated::exchange(mine, [&](auto of) {
    Rows r;
    for (int t = 0; t < 4; ++t) {
      const Mine theirs = of(first + t);
      for (int i = 0; i < 4; ++i)
        std::memcpy(&r.at[i % 2][i / 2 * 8 + 2 * t], &theirs.a[i], sizeof(unsigned));
    }
    return r;
  });
  emulated::products().add([&d, rows, b] { emulated::add_product<S, N, b_across>(d, rows.at, b); });
}

}  // namespace vectile::cuda
