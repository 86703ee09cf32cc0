"""Models refuse what does not fit, in words that say which argument, what was expected and what came."""

from __future__ import annotations

import re

import numpy as np
import pytest

from vectile import models, nn, random
from vectile.models import adversarial, cyclegan, diffusion, search, seq2seq, skipgram
from vectile.models.char_rnn import CharRNN, CharRNNConfig

ZEROS = np.zeros
GENERATORS = {
    "GPT": models.GPT(models.GPTConfig(9, 8, 1, 1, 4)),
    "CharRNN": CharRNN(CharRNNConfig(9, 4, 4, 1)),
}
TRANSFORMER = models.TranslationTransformer(
    models.TransformerConfig(9, 4, 1, 1, 1, 4, dropout=0.0, context=4)
)
PROCESS = diffusion.Diffusion(diffusion.linear_schedule(10))


def images(*shape):
    return ZEROS(shape, np.float32)


def conditional(labels):
    return models.DCGenerator(4, 2, classes=3)(images(2, 4), labels)


def style(*args):
    return models.StyleGenerator(4, (2, 2))(images(2, 4), *args)


def unet(x, t, **options):
    return models.UNet(width=2, groups=1, **options)(x, t)


CASES = [
    # settings
    (lambda: models.MLP(4, 3.5, 2), TypeError, "MLP: widths type: expected an integer, got float"),
    (lambda: models.MLP(4, (3, 0), 2), ValueError, "MLP: widths: expected >= 1, got 0"),
    (lambda: models.LeNet(11), ValueError, "LeNet: size: expected >= 12, got 11"),
    (lambda: models.LeNet(28, classes=0), ValueError, "LeNet: classes: expected >= 1, got 0"),
    (lambda: models.small_resnet(0), ValueError, "ResNet: classes: expected >= 1, got 0"),
    (lambda: models.ViT(8, 0), ValueError, "ViT: patch: expected >= 1, got 0"),
    (lambda: models.VAE(latent=0), ValueError, "VAE: latent: expected >= 1, got 0"),
    (lambda: models.MLPGenerator(0), ValueError, "MLPGenerator: latent: expected >= 1, got 0"),
    (lambda: models.DCGenerator(classes=-1), ValueError, "classes: expected >= 0, got -1"),
    (lambda: models.DCDiscriminator(0), ValueError, "DCDiscriminator: width: expected >= 1"),
    (lambda: models.CycleGAN(4, -1), ValueError, "CycleGAN: blocks: expected >= 0, got -1"),
    (lambda: cyclegan.ImagePool(0, None), ValueError, "ImagePool: size: expected >= 1, got 0"),
    (lambda: models.StyleGenerator(4, ()), ValueError, "StyleGenerator: widths: expected >= 1"),
    (lambda: models.UNet(width=7), ValueError, "UNet: width: expected an even number, got 7"),
    (lambda: models.UNet(multipliers=()), ValueError, "UNet: multipliers: expected >= 1, got 0"),
    (lambda: models.UNet(attention=(9,)), ValueError, "levels below 2, got [9]"),
    (lambda: diffusion.linear_schedule(0), ValueError, "linear_schedule: steps: expected >= 1"),
    (lambda: diffusion.cosine_schedule(0), ValueError, "cosine_schedule: steps: expected >= 1"),
    (lambda: diffusion.Diffusion([]), ValueError, "Diffusion: betas: expected a vector"),
    (lambda: seq2seq.linear_decay(1, 0), ValueError, "linear_decay: steps: expected >= 1, got 0"),
    (lambda: seq2seq.exponential_decay(1, 1.5), ValueError, "k: expected in (0, 1), got 1.5"),
    (lambda: seq2seq.inverse_sigmoid_decay(1, 0), ValueError, "k: expected >= 1, got 0"),
    # what goes in
    (lambda: models.MLP(4, 3, 2)(images(4)), ValueError, "MLP: x shape: expected (batch, …)"),
    (
        lambda: models.LeNet(16)(images(2, 1, 16, 15)),
        ValueError,
        "LeNet: images shape: expected (batch, 1, 16, 16), got (2, 1, 16, 15)",
    ),
    (
        lambda: nn.Sequential(nn.Identity(), models.LeNet(16))(images(2, 1, 8, 8)),
        ValueError,
        "LeNet: images shape: expected (batch, 1, 16, 16), got (2, 1, 8, 8) (in 1)",
    ),
    (
        lambda: models.small_resnet()(images(1, 8, 8)),
        ValueError,
        "ResNet: images shape: expected (batch, 1, height, width), got (1, 8, 8)",
    ),
    (lambda: models.VAE().elbo(images(2, 1, 8, 8) + 2), ValueError, "expected pixels in [0, 1]"),
    (lambda: models.VAE().elbo(images(2, 1, 8, 8) - np.nan), ValueError, "pixels in [0, 1]"),
    (lambda: models.VAE().sample(-1), ValueError, "VAE.sample: count: expected >= 0, got -1"),
    (
        lambda: models.MLPGenerator(4)(images(4)),
        ValueError,
        "MLPGenerator: z shape: expected (n, 4), got (4,)",
    ),
    (lambda: models.DCGenerator(4)(images(2, 4), [1, 2]), ValueError, "labels: expected None"),
    (lambda: conditional(None), ValueError, "labels: expected integers below 3, got None"),
    (lambda: conditional([1]), ValueError, "labels shape: expected (2,), got (1,)"),
    (lambda: conditional([0.5, 1]), TypeError, "labels dtype: expected an integer type"),
    (lambda: conditional([1, -1]), IndexError, "labels value: expected in [0, 3), got -1"),
    (
        lambda: models.DCDiscriminator()(images(2, 1, 32, 32)),
        ValueError,
        "DCDiscriminator: images shape: expected (n, 1, 16, 16), got (2, 1, 32, 32)",
    ),
    (
        lambda: models.DCDiscriminator()(images(2, 1, 16, 16), [0, 1]),
        ValueError,
        "DCDiscriminator: labels: expected None",
    ),
    (
        lambda: models.CycleGAN(2).translator_losses(images(2, 1, 7, 8), images(2, 1, 8, 8)),
        ValueError,
        "CycleGAN: images size: expected even sides, got (7, 8)",
    ),
    (
        lambda: adversarial.gradient_penalty(None, images(2, 3), images(2, 3), [0.5]),
        ValueError,
        "gradient_penalty: mix shape: expected (2,), got (1,)",
    ),
    (
        lambda: adversarial.gradient_penalty(None, images(0, 3), images(0, 3)),
        ValueError,
        "gradient_penalty: real shape: expected a batch of images, got (0, 3)",
    ),
    (lambda: style(images(2, 4), 5), ValueError, "crossover: expected in [0, 4], got 5"),
    (lambda: style(images(2, 4), -1), ValueError, "crossover: expected in [0, 4], got -1"),
    (lambda: style(None, 1), ValueError, "crossover: expected None without other"),
    (lambda: style(images(3, 4)), ValueError, "other shape: expected (2, 4), got (3, 4)"),
    (lambda: unet(images(2, 1, 7, 8), [1, 2]), ValueError, "x size: expected multiples of 2"),
    (lambda: unet(images(2, 1, 8, 8), 1), ValueError, "UNet: t shape: expected (2,), got ()"),
    (lambda: unet(images(1, 8, 8), [1]), ValueError, "UNet: x shape: expected (n, 1, height"),
    (
        lambda: PROCESS.add_noise(images(2, 3), -1, images(2, 3)),
        IndexError,
        "Diffusion: t value: expected in [0, 10), got -1",
    ),
    (
        lambda: PROCESS.add_noise(images(2, 3), [1, 2, 3], images(2, 3)),
        ValueError,
        "Diffusion: t shape: expected () or (2,), got (3,)",
    ),
    (
        lambda: PROCESS.add_noise(images(2, 3), 1, images(3)),
        ValueError,
        "add_noise: noise shape: expected (2, 3), got (3,)",
    ),
    (lambda: PROCESS.loss(None, [1, 2]), TypeError, "Diffusion.loss: x0: expected an array"),
    (
        lambda: models.SkipGram(5, 2).loss([1, 2], [2], [[3]]),
        ValueError,
        "SkipGram: contexts shape: expected (B, C) for centres (B,)",
    ),
    (
        lambda: models.SkipGram(5, 2).loss([1], [2], [3]),
        ValueError,
        "SkipGram: negatives shape: expected (B, K) for contexts (B,), got (1,) for (1,)",
    ),
    (
        lambda: skipgram.analogy(np.eye(3), 0, 3, 1),
        IndexError,
        "analogy: b value: expected in [0, 3), got 3",
    ),
    (lambda: skipgram.analogy(np.eye(3), 0, 1, -1), IndexError, "analogy: c value: expected in"),
    (lambda: skipgram.analogy(np.eye(3), 0.5, 1, 2), TypeError, "analogy: a dtype: expected an"),
    (
        lambda: skipgram.nearest(np.eye(3), np.ones(3), 1, without=[7]),
        IndexError,
        "nearest: without value: expected in [0, 3), got 7",
    ),
    (lambda: skipgram.nearest(np.eye(3), np.ones(3), -1), ValueError, "nearest: count: expected"),
    # generating and searching
    *[
        (lambda model=model, call=call: call(model.generate), error, f"{name}.generate: {words}")
        for name, model in GENERATORS.items()
        for call, error, words in (
            (lambda f: f([1], 1, seed=-1), ValueError, "seed: expected >= 0, got -1"),
            (lambda f: f([1], 1, seed=0.5), TypeError, "seed type: expected an integer, got float"),
            (lambda f: f([1], 1, top_k=0), ValueError, "top_k: expected >= 1, got 0"),
            (lambda f: f([1], 1, 0.0), ValueError, "temperature: expected > 0, got 0.0"),
            (lambda f: f([1], -1), ValueError, "max_new_tokens: expected >= 0, got -1"),
            (lambda f: f([], 1), TypeError, "ids dtype: expected integers, got float64"),
        )
    ],
    *[
        (lambda call=call: call(TRANSFORMER, [[3]], max_length=5), ValueError, words)
        for call, words in (
            (search.greedy_search, "greedy_search: max_length: expected at most the 4 tokens of"),
            (search.beam_search, "beam_search: max_length: expected at most the 4 tokens of"),
        )
    ],
    (
        lambda: search.greedy_search(TRANSFORMER, [[3] * 5], max_length=4),
        ValueError,
        "TranslationTransformer: source length: expected at most 4, got 5",
    ),
]


@pytest.mark.parametrize(
    ("call", "error", "message"), CASES, ids=[message for *_, message in CASES]
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


@pytest.mark.parametrize("name", ["vit", "gpt"])
def test_looking_at_attention_is_without_dropout_and_leaves_the_mode_alone(name):
    random.manual_seed(0)
    model, x = {
        "vit": lambda: (models.ViT(d_model=8, n_heads=2, dropout=0.5), images(2, 1, 8, 8)),
        "gpt": lambda: (models.GPT(models.GPTConfig(9, 8, 2, 2, 8, dropout=0.5)), [[1, 2, 3]]),
    }[name]()
    seen = [model.train(mode).attention_weights(x) for mode in (True, True, False)]
    assert np.array_equal(seen[0], seen[1]) and np.array_equal(seen[0], seen[2])
    assert not model.training
    dropouts = [m for m in model.train().modules() if isinstance(m, nn.Dropout)]
    model.attention_weights(x)
    assert dropouts and all(m.training for m in dropouts)
