"""Layering check: includes and imports point down, intrinsics stay put, no weak code above baseline.

    python .ci/layering.py [BUILD_DIR]

With a build directory the object files are read too: a kernel object of one tier may define no weak
symbol outside the tier's namespace, since the linker could keep it for every CPU.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Layers of csrc/, lowest first, and what each may include besides itself. TYPES: the plain structs that
# kernel signatures share with the layers above.
TYPES = re.compile(r"kernels/\w+_types\.h$")
CPP = {
    "base": set(),
    "simd": {"base"},
    "kernels": {"base", "simd", "dispatch/family.h"},
    "dispatch": {"base"},
    "ops": {"base", "dispatch"},
    "bindings": {"base", "dispatch", "ops"},
}
INTRINSICS = re.compile(r"([a-z0-9]*intrin|cpuid|arm_neon)\.h$")

# Layers of python/vectile/, lowest first; a module may import from its own layer and below.
PYTHON = [
    {"_core", "_cuda", "_cuda_emulated", "py.typed"},
    {"ops", "device", "runtime", "info", "random", "machine"},
    {"autograd"},
    {"nn", "optim", "precision", "quant", "checkpoint", "extras", "terminal"},
    {"data", "metrics", "models", "train", "kernel_table", "viz"},
    {"recipes"},
    {"cli"},
]


def cpp_errors() -> list[str]:
    errors = []
    for path in sorted((ROOT / "csrc").rglob("*.*")):
        layer = path.relative_to(ROOT / "csrc").parts[0]
        for target in re.findall(r'#\s*include\s+[<"]([^>"]+)[>"]', path.read_text()):
            where = f"{path.relative_to(ROOT)}: includes {target}"
            top = target.split("/")[0]
            below = {top, target} & CPP[layer] or (
                TYPES.search(target) and layer in {"dispatch", "ops"}
            )
            if top in CPP and top != layer and not below:
                errors.append(f"{where}, a layer that {layer}/ may not see")
            if top == "pybind11" and layer != "bindings":
                errors.append(f"{where}; only bindings/ may")
            if INTRINSICS.search(target) and layer not in {"simd", "dispatch"}:
                errors.append(f"{where}; only simd/ and dispatch/ may")
            if layer in {"kernels", "simd"} and target in {"vector", "string", "algorithm", "map"}:
                errors.append(f"{where}; kernels use no std containers or algorithms")
    return errors


def python_errors() -> list[str]:
    rank = {name: i for i, layer in enumerate(PYTHON) for name in layer}
    errors = []
    package = ROOT / "python" / "vectile"
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts == ("__init__",):
            continue
        own = parts[0]
        where = path.relative_to(ROOT)
        if own.strip("_") == "main":
            continue
        if own not in rank:
            errors.append(f"{where}: add {own} to a layer in .ci/layering.py")
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom) and node.level:
                errors.append(f"{where}: relative import; write it from vectile")
            elif isinstance(node, ast.ImportFrom) and node.module:
                if node.module == "vectile":
                    names = [a.name for a in node.names]
                elif node.module.startswith("vectile."):
                    names = [node.module.split(".")[1]]
            elif isinstance(node, ast.Import):
                names = [a.name.split(".")[1] for a in node.names if a.name.startswith("vectile.")]
            for name in names:
                if rank.get(name, -1) > rank[own]:
                    errors.append(f"{where}: imports vectile.{name}, a layer above {own}")
    return errors


def object_errors(build: Path) -> list[str]:
    errors = []
    objects = sorted(build.glob("CMakeFiles/kernel_*.dir/**/*.o"))
    if not objects:
        errors.append(f"{build}: no kernel objects; build first")
    for path in objects:
        tier_family = path.relative_to(build).parts[1].removeprefix("kernel_").removesuffix(".dir")
        if tier_family.startswith("scalar"):
            continue
        symbols = subprocess.run(["nm", "-C", path], capture_output=True, text=True, check=True)
        for line in symbols.stdout.splitlines():
            kind, _, name = line[17:].partition(" ")
            if kind in {"W", "V", "u"} and not re.search(r"vectile::(avx|amx|neon)", name):
                errors.append(f"{tier_family}: weak symbol {name} compiled for that tier only")
    return errors


def main() -> int:
    errors = cpp_errors() + python_errors()
    if len(sys.argv) > 1:
        errors += object_errors(Path(sys.argv[1]))
    for error in errors:
        print(error)
    print(f"layering: {len(errors)} errors")
    return bool(errors)


if __name__ == "__main__":
    raise SystemExit(main())
