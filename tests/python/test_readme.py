"""README's example runs, and its walk quotes lines that are there."""

import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_example_runs():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code
    names: dict[str, object] = {}
    exec(code.group(1), names)
    y = names["y"]
    assert isinstance(y, np.ndarray) and y.shape == (8, 512, 64) and np.isfinite(y).all()
    assert np.isfinite(names["loss"].item())


def test_the_walk_quotes_the_sources():
    rows = re.findall(r"^\| \d+\. .*? \| (.*?) \| (`+)(.*?)\2 \|$", README, re.MULTILINE)
    assert len(rows) == 9
    for files, _, line in rows:
        texts = [(ROOT / p).read_text() for p in re.findall(r"`([^`]+)`", files)]
        assert any(line in text for text in texts), (files, line)
    body = re.search(r"```cpp\n(.*?)```", README, re.DOTALL)
    assert body
    source = (ROOT / "csrc" / "kernels" / "softmax.cpp").read_text()
    squeezed = re.sub(r"\s+", " ", source)
    assert re.sub(r"\s+", " ", body.group(1)).strip() in squeezed


def test_every_path_is_there():
    paths = set(re.findall(r"`((?:csrc|python|tests|bench|\.ci)/[^`\s]*)`", README))
    assert len(paths) > 10
    for path in paths:
        # F stands for a family
        found = path.replace("F.", "softmax.")
        assert list(ROOT.glob(found)), path


def test_both_commands_are_marked():
    for name in ("demo", "test"):
        assert re.search(rf"<!-- {name} -->\s*```sh\n.+?```", README, re.DOTALL)
