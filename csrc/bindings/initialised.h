// Arguments of our own classes. pybind11 gives an object that came from cls.__new__ alone a value
// of uninitialised memory; here it is a TypeError.
#pragma once

#include <pybind11/pybind11.h>

#include "base/error.h"
#include "ops/gemm.h"
#include "ops/gemm_f8.h"
#include "ops/gemm_s4.h"
#include "ops/gemm_s8.h"

namespace vectile {

template <class T>
struct InitialisedCaster : pybind11::detail::type_caster_base<T> {
  bool load(pybind11::handle source, bool convert) {
    if (pybind11::isinstance<T>(source)) {
      auto* instance = reinterpret_cast<pybind11::detail::instance*>(source.ptr());
      if (!instance->get_value_and_holder().holder_constructed()) {
        const char* name = Py_TYPE(source.ptr())->tp_name;
        fail<TypeError>(name, "self", "state", "initialised", "an object made by __new__ alone");
      }
    }
    return pybind11::detail::type_caster_base<T>::load(source, convert);
  }
};

}  // namespace vectile

template <>
struct pybind11::detail::type_caster<vectile::ops::PackedMatrix>
    : vectile::InitialisedCaster<vectile::ops::PackedMatrix> {};
template <>
struct pybind11::detail::type_caster<vectile::ops::QuantizedMatrix>
    : vectile::InitialisedCaster<vectile::ops::QuantizedMatrix> {};
template <>
struct pybind11::detail::type_caster<vectile::ops::Int4Matrix>
    : vectile::InitialisedCaster<vectile::ops::Int4Matrix> {};
template <>
struct pybind11::detail::type_caster<vectile::ops::Float8Matrix>
    : vectile::InitialisedCaster<vectile::ops::Float8Matrix> {};
