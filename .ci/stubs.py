"""Write python/vectile/_core.pyi from the signatures that pybind11 puts into the docstrings.

    python .ci/stubs.py && ruff format python/vectile/_core.pyi

Arguments that C++ takes as any object are ``Any``; what it returns as an object is an array, or a
tuple of them where a ``return_*`` argument says so.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vectile import _core

TARGET = Path(__file__).resolve().parent.parent / "python" / "vectile" / "_core.pyi"

HEADER = '''"""Compiled kernels; written by .ci/stubs.py."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

'''
# What pybind11 writes -> what a checker reads; arguments are as wide as C++ takes them.
NAMES = [
    (r"[\w:<>]*::[\w:<>]+", "Any"),  # a C++ type without a Python name
    (r"\bvectile\._core\.", ""),
    (r"\bcollections\.abc\.", ""),
    (r"\bnumpy\.dtype\b(?!\[)", "np.dtype[Any]"),
    (r"\btuple\b(?!\[)", "tuple[Any, ...]"),
    (r"\blist\b(?!\[)", "list[Any]"),
    (r"\bdict\b(?!\[)", "dict[str, Any]"),
]
ARGUMENTS = [
    *NAMES,
    (r"typing\.SupportsFloat( \| typing\.SupportsIndex)?", "float"),
    (r"typing\.SupportsInt( \| typing\.SupportsIndex)?", "int"),
    (r"\bobject\b", "Any"),
    (r": (str|int|float) = None", r": \1 | None = None"),
]
RESULTS = [*NAMES, (r"^object$", "NDArray[Any]"), (r"\bobject\b", "Any")]


def replaced(text: str, table: list[tuple[str, str]]) -> str:
    for pattern, new in table:
        text = re.sub(pattern, new, text)
    return text


def signature(doc: str) -> str:
    """``def name(arguments) -> result: ...`` from a docstring's first line."""
    found = re.match(r"(\w+)\((.*)\) -> (.+)", doc.strip().splitlines()[0])
    assert found, doc
    name, arguments, result = found.groups()
    arguments = replaced(re.sub(r"^self: [\w.]+", "self", arguments), ARGUMENTS)
    if re.search(r"\barg\d+\b", arguments) and "/" not in arguments:
        arguments += ", /"
    result = "Any" if "return_" in arguments else replaced(result, RESULTS)
    line = f"def {name}({arguments}) -> {result}: ..."
    ast.parse(line)
    return line


def members(owner: type[Any]) -> Iterator[str]:
    for name, value in sorted(vars(owner).items()):
        if isinstance(value, property):
            result = (value.fget.__doc__ or "").rpartition("-> ")[2].strip() or "Any"
            yield f"    @property\n    def {name}(self) -> {replaced(result, RESULTS)}: ..."
        elif (
            callable(value)
            and value.__doc__
            and f"{name}(" in value.__doc__
            and "->" in value.__doc__
        ):
            yield "    " + signature(value.__doc__)


def stub() -> str:
    text = [HEADER]
    names = [n for n in dir(_core) if not n.startswith("_")]
    for name in sorted(names, key=lambda n: (not isinstance(getattr(_core, n), type), n)):
        value = getattr(_core, name)
        if isinstance(value, type):
            text += [f"class {name}:\n", "\n".join(members(value)) or "    ...", "\n\n"]
        else:
            text.append(signature(value.__doc__) + "\n")
    return "".join(text)


if __name__ == "__main__":
    TARGET.write_text(stub())
