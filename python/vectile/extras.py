"""Optional packages, with one clear line when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType


class MissingExtra(ImportError):
    """A package that only some commands need is not installed."""


def require(module: str, purpose: str) -> ModuleType:
    """Import an optional module; MissingExtra says what needs it and how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtra(
            f"{purpose} needs the package {package}: pip install 'vectile[demo]'"
        ) from error
