// Exceptions that reach Python as its own, and the one form of their message:
//   op: argument property: expected X, got Y
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

#include "base/types.h"

namespace vectile {

struct ValueError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
struct IndexError : std::out_of_range {
  using std::out_of_range::out_of_range;
};
struct TypeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// Thrown by parallel_for when the interrupt hook asks to stop (Ctrl-C).
struct Interrupted : std::runtime_error {
  Interrupted() : std::runtime_error("interrupted") {}
};

inline std::ostream& operator<<(std::ostream& os, const Shape& s) {  // Python's tuple form
  os << '(';
  for (int i = 0; i < s.ndim; ++i) os << (i ? ", " : "") << s.dim[i];
  return os << (s.ndim == 1 ? ",)" : ")");
}
inline std::ostream& operator<<(std::ostream& os, DType t) { return os << dtype_name(t); }

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream os;
  (os << ... << parts);
  return os.str();
}

template <class Error = ValueError, class X, class Y>
[[noreturn]] void fail(const char* op, const char* argument, const char* property,
                       const X& expected, const Y& got) {
  throw Error(text(op, ": ", argument, " ", property, ": expected ", expected, ", got ", got));
}

template <class Error = ValueError, class X, class Y>
inline void check(bool ok, const char* op, const char* argument, const char* property,
                  const X& expected, const Y& got) {
  if (!ok) [[unlikely]]
    fail<Error>(op, argument, property, expected, got);
}

}  // namespace vectile
