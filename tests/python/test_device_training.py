"""A training step on a device is that of the CPU: model, loss, gradients and optimiser on the same code."""

import numpy as np
import pytest
from gpu_array import GpuArray, here, there
from on_device import needs_device
from test_device import gpu  # noqa: F401  (a fixture)

import vectile
from vectile import data, nn, optim
from vectile.models import BERT, GPT, VAE, BERTConfig, BERTMaskedLM, GPTConfig, SkipGram
from vectile.train import TrainConfig, Trainer

pytestmark = needs_device


def trained(model, place, ids, targets):
    """Losses of two steps, the first one's gradients, and parameters after it."""
    model.to(place)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    parameters = list(model.parameters())
    loss = model(ids, targets)
    loss.backward()
    optimizer.step()
    kinds = {type(p.data) for p in parameters} | {type(p.grad.data) for p in parameters}
    assert kinds == {np.ndarray if place == "cpu" else GpuArray}
    return (
        [float(loss), float(model(ids, targets))],
        [p.grad.to("cpu").numpy() for p in parameters],
        [p.to("cpu").numpy() for p in parameters],
    )


def agree(on_host, on_gpu, terms):
    """Gradients within the rounding of some ten ops that each add up `terms` products."""
    for a, b in zip(on_host, on_gpu, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=10 * terms * 2.0**-24 * abs(a).max())


@pytest.mark.parametrize(
    "options", [{}, {"positions": "rotary", "dropout": 0.2}, {"positions": "alibi", "dropout": 0.1}]
)
def test_gpt(gpu, rng, options):  # noqa: F811
    config = GPTConfig(32, context=12, n_layers=2, n_heads=2, d_model=32, **options)
    ids, targets = rng.integers(0, 32, (2, 2, 9))
    found = []
    for place, array in (("cpu", np.asarray), ("cuda", gpu)):
        vectile.manual_seed(0)
        found.append(trained(GPT(config), place, array(ids), array(targets)))
    (losses, grads, values), (on_gpu, gpu_grads, gpu_values) = found
    agree(grads, gpu_grads, 128)
    # The loss after a step, which Adam makes as long for a gradient of rounding's size as for any.
    np.testing.assert_allclose(on_gpu, losses, rtol=1e-5)
    for a, b, g in zip(values, gpu_values, grads, strict=True):
        clear = abs(g) > 1e-3 * abs(g).max()
        np.testing.assert_allclose(b[clear], a[clear], atol=1e-4)


class Attending(nn.Module):
    """Attention with what it has of options, and a Transformer layer over it."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(
            16, 2, 0.2, batch_first=True, sinks=True, window=(4, None), num_kv_heads=1,
            alibi_slopes=nn.alibi_slopes(2), rotary=nn.RotaryEmbedding(8, 16),
        )  # fmt: skip
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, 0.1, batch_first=True)

    def forward(self, x, masks):
        found, weights = self.attention(x, x, x, **masks)
        mask, padding = masks.get("attn_mask"), masks.get("key_padding_mask")
        out = self.layer(x + found, src_mask=mask, src_key_padding_mask=padding)[..., 0]
        return (out * out).mean() + (0 if weights is None else (weights * weights).sum())


@pytest.mark.parametrize("kind", ("bool", "added", "padding", "weights"))
def test_attention_modules(gpu, rng, kind):  # noqa: F811
    x = rng.standard_normal((2, 9, 16)).astype(np.float32)
    mask = rng.random((9, 9)) < 0.4
    mask[3] = True  # a query that sees nothing
    padding = np.arange(9) >= np.array([[5], [9]])
    found = []
    for place, array in (("cpu", np.asarray), ("cuda", gpu)):
        masks = {
            "bool": {"attn_mask": array(mask)},
            "added": {"attn_mask": array(np.where(mask, -np.inf, 0.5).astype(np.float32))},
            "padding": {"key_padding_mask": array(padding), "attn_mask": array(mask)},
            "weights": {
                "key_padding_mask": array(padding),
                "is_causal": True,
                "need_weights": True,
            },
        }[kind]
        vectile.manual_seed(0)
        found.append(trained(Attending(), place, array(x), {"need_weights": False, **masks}))
    (losses, grads, _), (on_gpu, gpu_grads, _) = found
    np.testing.assert_allclose(on_gpu, losses, rtol=1e-5)
    agree(grads, gpu_grads, 128)


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(7, 16), nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, x, targets):
        hidden = nn.functional.gelu(self.norm(self.first(x)))
        return nn.functional.cross_entropy(self.last(hidden), targets)


def test_perceptron(gpu, rng):  # noqa: F811
    x, targets = rng.standard_normal((5, 7)).astype(np.float32), rng.integers(0, 3, 5)
    found = []
    for place, array in (("cpu", np.asarray), ("cuda", gpu)):
        vectile.manual_seed(0)
        found.append(trained(Perceptron(), place, array(x), array(targets)))
    (losses, grads, _), (on_gpu, gpu_grads, _) = found
    np.testing.assert_allclose(on_gpu, losses, rtol=1e-6)
    agree(grads, gpu_grads, 16)


class Mixed(nn.Module):
    """Layers of which each could be tempted to look at a number."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 8, padding_idx=0)
        self.rotary, self.attention = nn.RotaryEmbedding(8), nn.MultiheadAttention(8, 2)
        self.norm, self.dropout = nn.BatchNorm1d(8), nn.Dropout(0.1)
        self.instance = nn.InstanceNorm1d(5, track_running_stats=True)
        self.last = nn.Linear(8, 3)
        self.loss = nn.CrossEntropyLoss(np.array([1, 2, 3], np.float32), ignore_index=2)

    def forward(self, ids, targets):
        x = self.rotary(self.embedding(ids))
        x = self.attention(x, x, x, need_weights=False, is_causal=True)[0] + x
        x = self.instance(self.norm(x.swapaxes(1, 2)).swapaxes(1, 2))
        x = nn.functional.elu(self.dropout(x))[:, [0, 2]].mean(1)
        logits = self.last(x)
        bound = nn.functional.binary_cross_entropy(logits.sigmoid(), logits.detach().softmax())
        return self.loss(logits, targets) + bound


def test_a_step_waits_for_nothing(gpu, rng, monkeypatch):  # noqa: F811
    model = Mixed().to("cuda")
    average, optimizer = optim.EMA(model), optim.AdamW(model.parameters())
    ids, targets = there([rng.integers(0, 7, (4, 5)), rng.integers(0, 3, 4)], "cuda")

    def read(self, *_):
        raise AssertionError("a number of the GPU's was read")

    for name in ("__bool__", "__float__", "__int__", "item", "get", "tolist"):
        monkeypatch.setattr(GpuArray, name, read)
    for _ in range(2):
        optimizer.zero_grad()
        model(ids, targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        nn.utils.clip_grad_value_(model.parameters(), 0.5)
        optimizer.step()
        average.update()


def test_a_run_goes_on_where_it_is_told(gpu, tmp_path):  # noqa: F811
    pytest.importorskip("safetensors")
    text = np.frombuffer(b"the quick brown fox jumps over the lazy dog. " * 9, np.uint8)
    config = TrainConfig(steps=4, batch=2, warmup=2, eval_batches=1)
    model = GPTConfig(128, context=6, n_layers=1, n_heads=2, d_model=16)
    vectile.manual_seed(0)
    first = Trainer(GPT(model).to("cuda"), config, *data.split(text))
    first.step()
    first.save(tmp_path / "run")
    losses = []
    for place, kind in (("cpu", np.ndarray), ("cuda", GpuArray)):
        trainer = Trainer.resume(tmp_path / "run", *data.split(text), device=place)
        losses.append([trainer.step(), trainer.validate()])
        assert {type(p.data) for p in trainer.parameters} == {kind}
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def language(place):
    model = BERTMaskedLM(BERT(BERTConfig(16, context=8, n_layers=1, n_heads=2, d_model=16)))
    ids = np.array([[1, 2, 3, 0], [4, 5, 6, 7]])
    model.to(place).eval()
    arrays = there([ids, np.where(ids > 4, ids, -100), ids == 0], place)
    loss = model(*arrays)
    loss.backward()
    return [loss, model.dense.weight.grad, model.bert.attention_weights(arrays[0])]


def words(place):
    model = SkipGram(9, 4).to(place)
    nn.init.normal_(model.contexts.weight)
    loss = model.loss(*there([np.array([1, 2]), np.array([3, 4]), np.array([[5], [6]])], place))
    loss.backward()
    return [loss, model.centres.weight.grad, model.vectors()]


def images(place):
    model = VAE((4, 4), (8,), 2).to(place)
    pixels = np.random.default_rng(0).integers(0, 17, (3, 4, 4)).astype(np.float32) / 16
    fit, divergence = model.elbo(there(pixels, place))
    (divergence - fit).mean().backward()
    return [fit, divergence, next(model.parameters()).grad, model.sample(2)]


@pytest.mark.parametrize("run", [language, words, images])
def test_models(gpu, run):  # noqa: F811
    found = []
    for place in ("cpu", "cuda"):
        vectile.manual_seed(0)
        found.append([here(x) for x in run(place)])
    agree(*found, 64)
