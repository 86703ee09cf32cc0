"""Arrays and settings in one safetensors file, written so that a crash never leaves half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectile.device import as_array, is_array, to
from vectile.extras import require

_KEY = "vectile"  # safetensors metadata holds strings only: one of them is our JSON


def save(
    path: str | PathLike[str], tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]
) -> None:
    """Write `tensors` and JSON-able `settings`: to a temporary file, synced, then renamed into place.

    Tensors on a GPU are written as those of the CPU.
    """
    numpy_io = require("safetensors.numpy", "saving a checkpoint")
    # not ascontiguousarray, which gives a number without axes one
    contiguous = {
        key: np.asarray(to(as_array(array), "cpu"), order="C") for key, array in tensors.items()
    }
    write_atomically(path, numpy_io.save(contiguous, {_KEY: json.dumps(settings)}))


def load(path: str | PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """(tensors, settings) of a file that `save` wrote.

    Raises OSError for a file that cannot be read, and ValueError for one that is something else.
    """
    safetensors = require("safetensors", "loading a checkpoint")
    with open(path, "rb"):  # a clear OSError for a missing file or a folder
        pass
    try:
        with safetensors.safe_open(os.fspath(path), framework="np") as file:
            settings = json.loads((file.metadata() or {}).get(_KEY, "null"))
            if not isinstance(settings, dict):  # said before a foreign file's gigabytes are read
                raise ValueError(
                    f"{path}: expected a checkpoint written by vectile, got other safetensors"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected a safetensors checkpoint ({error})") from error
    return tensors, settings


@contextmanager
def understanding(path: object) -> Iterator[None]:
    """Around code that rebuilds what a checkpoint holds: any misfit is a ValueError that names the file."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError) as e:
        found = f"{type(e).__name__}: {e.args[0] if e.args else ''}"
        raise ValueError(f"{path}: expected a checkpoint that fits together ({found})") from e


def write_atomically(path: str | PathLike[str], content: bytes) -> None:
    """Replace `path` by `content`; readers see the old file or the new one, also after a power cut."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):  # the rename itself must reach the disk too
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def part(tensors: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """The entries under `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def plain(value: Any) -> Any:
    """A JSON-able copy: arrays and NumPy scalars become lists and numbers."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.tolist() if is_array(value) or isinstance(value, np.generic) else value
