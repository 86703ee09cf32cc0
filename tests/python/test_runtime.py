"""Tier choice, threads, memory and signals, as a user meets them."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import vectile
from vectile import _core, ops


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_environment_forces_a_tier():
    show = "import vectile; print(vectile.config()['isa'])"
    assert python(show, VECTILE_ISA="scalar").stdout.strip() == "scalar"
    assert python(show, VECTILE_ISA="").stdout.strip() == vectile.config()["supported_isas"][-1]
    wrong = python(show, VECTILE_ISA="avx9000")
    assert wrong.returncode != 0
    assert "VECTILE_ISA: value: expected one of scalar" in wrong.stderr
    assert "got avx9000" in wrong.stderr


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"VECTILE_NUM_THREADS": "3", "OMP_NUM_THREADS": "4"}, "3 VECTILE_NUM_THREADS"),
        ({"VECTILE_NUM_THREADS": "", "OMP_NUM_THREADS": "4"}, "4 OMP_NUM_THREADS"),
    ],
)
def test_the_environment_sets_the_thread_count(env, expected):
    show = "from vectile import config; c = config(); print(c['threads'], c['threads_from'])"
    assert python(show, **env).stdout.strip() == expected


def test_set_num_threads():
    before = vectile.get_num_threads()
    vectile.set_num_threads(3)
    assert (vectile.get_num_threads(), vectile.config()["threads_from"]) == (3, "set_num_threads")
    vectile.set_num_threads(before)
    with pytest.raises(ValueError, match="set_num_threads: n value: expected 1 to 4096, got 0"):
        vectile.set_num_threads(0)


def test_info_as_text_and_json():
    run = [sys.executable, "-m", "vectile.info"]
    shown = json.loads(subprocess.run([*run, "--json"], capture_output=True, check=True).stdout)
    assert shown["isa"] in shown["supported_isas"]
    assert shown["numpy"] == np.__version__
    text = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert f"isa             {shown['isa']}" in text


def test_every_tier_is_reachable_by_name():
    with pytest.raises(ValueError, match="expected one of scalar"):
        _core.set_isa("mmx")


def test_results_are_recycled_when_collected():
    x = np.ones((300, 300), np.float32)
    ops.softmax(x)
    gc.collect()
    before = vectile.memory_stats()
    for _ in range(10):
        ops.softmax(x)
    after = vectile.memory_stats()
    assert after["misses"] == before["misses"]
    assert after["hits"] >= before["hits"] + 10
    assert after["in_use"] == before["in_use"]
    y = ops.softmax(x)
    assert vectile.memory_stats()["in_use"] > before["in_use"]
    view = y[5:, 3]
    del y
    np.testing.assert_allclose(view, 1 / 300, rtol=1e-5)  # the view keeps the block
    vectile.empty_cache()
    assert vectile.memory_stats()["cached"] == 0


def test_empty_arrays_come_from_the_cache():
    for shape, dtype in (((3, 5), "f4"), ([], "i8"), ((0, 4), "f8"), ((7,), "?")):
        a = vectile.empty(shape, dtype)
        assert (a.shape, a.dtype) == (tuple(shape), np.dtype(dtype)) and a.flags.writeable
        assert a.ctypes.data % 64 == 0
    in_use = vectile.memory_stats()["in_use"]
    b = vectile.empty((300, 300))
    assert vectile.memory_stats()["in_use"] >= in_use + b.nbytes
    for shape, dtype, error in (
        ((-1,), "f4", ValueError),
        ((1,) * 17, "f4", ValueError),
        ((2,), "c8", TypeError),
        ((2**62, 8), "f4", OverflowError),
        ((2**50,), "f4", MemoryError),
        (("a",), "f4", TypeError),
    ):
        with pytest.raises(error):
            vectile.empty(shape, dtype)


def test_a_cache_limit_of_zero_keeps_nothing():
    code = (
        "import numpy as np, vectile\n"
        "vectile.ops.softmax(np.ones((500, 500), np.float32))\n"
        "print(vectile.memory_stats()['cached'], vectile.memory_stats()['limit'])"
    )
    assert python(code, VECTILE_CACHE_LIMIT="0").stdout.split() == ["0", "0"]


def test_several_python_threads_at_once(rng):
    x = rng.normal(size=(400, 400)).astype(np.float32)
    expected = ops.softmax(x)
    wrong = []

    def work():
        for _ in range(20):
            if not np.array_equal(ops.softmax(x), expected):
                wrong.append(threading.get_ident())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_computes(rng):
    x = rng.normal(size=(700, 700)).astype(np.float32)
    expected = ops.softmax(x)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(0 if np.array_equal(ops.softmax(x), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("threads", ["1", "2"])
def test_ctrl_c_stops_a_long_call(threads):
    # One call of a second or more: values are left unwritten only where the call itself stopped.
    code = (
        "import signal, numpy as np, vectile\n"
        "def stop(*_): raise KeyboardInterrupt\n"
        "signal.signal(signal.SIGALRM, stop)\n"
        "x = np.ones((2500, 2500))\n"
        "y = np.full_like(x, np.nan)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01)\n"
        "try: vectile.ops.matmul(x, x, out=y)\n"
        "except KeyboardInterrupt: print('stopped', np.isnan(y).any())\n"
        "print(vectile.ops.softmax(np.zeros((1, 2), np.float32)))\n"
    )
    done = python(code, VECTILE_NUM_THREADS=threads, VECTILE_ISA="scalar")
    assert done.stdout.split("\n")[:2] == ["stopped True", "[[0.5 0.5]]"], done.stderr


def test_impossible_sizes_name_the_bytes():
    huge = np.broadcast_to(np.float32(1), (1 << 40, 1 << 10))
    with pytest.raises(MemoryError, match="cannot allocate 4503599627370496 bytes"):
        ops.softmax(huge)


def test_importing_vectile_leaves_the_rest_alone():
    show = """
import sys, vectile
late = {"rich", "matplotlib", "safetensors", "torch", "scipy", "vectile.nn", "vectile.cli"}
print(sorted(late & set(sys.modules)))
vectile.nn.Linear, vectile.optim.SGD
vectile.models.GPT, vectile.quant.quantize_dynamic, vectile.train.Trainer
try:
    vectile.nothing
except AttributeError as e:
    print(e)
"""
    lines = python(show).stdout.splitlines()
    assert lines == ["[]", "module 'vectile' has no attribute 'nothing'"]
