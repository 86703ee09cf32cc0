"""GANs, the style-based generator and the U-Net: PyTorch's values and gradients on the same weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from torch_reference import close, f, images, prepared, torch, weights

from vectile import models
from vectile.models.cyclegan import PatchDiscriminator, ResidualBlock, Translator
from vectile.models.unet import timestep_embedding

t = torch.nn
SLOPE = 0.2


def check(model, expected, *inputs):
    """`model(*inputs)` and its gradients are those of `expected(parameters, *tensors)`."""
    p = weights(model)
    for name, _ in model.named_parameters():
        p[name].requires_grad_()
    wanted = expected(p, *(torch.tensor(x) for x in inputs))
    out = model(*inputs)
    close(out, wanted)
    (out * out).sum().backward()
    wanted.square().sum().backward()
    for name, parameter in model.named_parameters():
        close(parameter.grad, p[name].grad)


def through(*layers):
    """PyTorch layers in a row, with the parameters `net.0.weight` … of the model."""
    net = t.Sequential(*layers).double().eval()

    def run(p, x):
        own = {k.removeprefix("net."): v for k, v in p.items() if k.startswith("net.")}
        return torch.func.functional_call(net, own, (x,))

    return run


def dcgan_generator(inputs, width, channels):
    return through(
        t.ConvTranspose2d(inputs, 2 * width, 4, bias=False),
        t.BatchNorm2d(2 * width),
        t.ReLU(),
        t.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
        t.BatchNorm2d(width),
        t.ReLU(),
        t.ConvTranspose2d(width, channels, 4, 2, 1),
        t.Tanh(),
    )


def dcgan_discriminator(channels, width, norm):
    return through(
        t.Conv2d(channels, width, 4, 2, 1),
        t.LeakyReLU(SLOPE),
        t.Identity(),
        t.Conv2d(width, 2 * width, 4, 2, 1, bias=not norm),
        t.BatchNorm2d(2 * width) if norm else t.Identity(),
        t.LeakyReLU(SLOPE),
        t.Identity(),
        t.Conv2d(2 * width, 1, 4),
    )


def test_the_fully_connected_pair():
    def layers(p, x):
        h = f.leaky_relu(f.linear(x, p["input.weight"], p["input.bias"]), SLOPE)
        h = f.leaky_relu(f.linear(h, p["hidden.weight"], p["hidden.bias"]), SLOPE)
        return f.linear(h, p["output.weight"], p["output.bias"])

    make, judge = models.MLPGenerator(5, 7, 4, 2), models.MLPDiscriminator(7, 4, 2)
    check(prepared(make), lambda p, z: layers(p, z).tanh().reshape(3, 2, 4, 4), images(3, 5))
    check(prepared(judge), lambda p, x: layers(p, x.flatten(1))[:, 0], images(3, 2, 4, 4))


def test_dcgan_and_its_labels():
    labels = np.array([2, 0, 1])
    hot = np.eye(3)[labels]
    make, run = models.DCGenerator(5, 4, 2, classes=3), dcgan_generator(8, 4, 2)
    check(
        prepared(make),
        lambda p, z, k: run(p, torch.cat([z, torch.tensor(hot)], 1)[:, :, None, None]),
        images(3, 5),
        labels,
    )
    run = dcgan_generator(5, 4, 1)
    check(prepared(models.DCGenerator(5, 4)), lambda p, z: run(p, z[..., None, None]), images(3, 5))
    judge, score = models.DCDiscriminator(4, 2, 3), dcgan_discriminator(5, 4, True)
    planes = torch.tensor(hot)[:, :, None, None].expand(3, 3, 16, 16)
    check(
        prepared(judge),
        lambda p, x, k: score(p, torch.cat([x, planes], 1)).reshape(3),
        images(3, 2, 16, 16),
        labels,
    )
    critic, value = models.DCDiscriminator(4, batch_norm=False), dcgan_discriminator(1, 4, False)
    check(prepared(critic), lambda p, x: value(p, x).reshape(3), images(3, 1, 16, 16))


class TorchResidual(t.Module):
    """CycleGAN's residual block."""

    def __init__(self, channels):
        super().__init__()
        self.conv1, self.conv2 = (
            t.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in "ab"
        )

    def forward(self, x):
        h = f.instance_norm(self.conv2(f.relu(f.instance_norm(self.conv1(x)))))
        return x + h


def test_cyclegan():
    check(
        prepared(ResidualBlock(3)),
        lambda p, x: torch.func.functional_call(TorchResidual(3), p, (x,)),
        images(2, 3, 5, 4),
    )
    translate = through(
        t.Conv2d(2, 4, 3, padding=1, bias=False),
        t.InstanceNorm2d(4),
        t.ReLU(),
        t.Conv2d(4, 8, 4, 2, 1, bias=False),
        t.InstanceNorm2d(8),
        t.ReLU(),
        *(TorchResidual(8) for _ in range(2)),
        t.ConvTranspose2d(8, 4, 4, 2, 1, bias=False),
        t.InstanceNorm2d(4),
        t.ReLU(),
        t.Conv2d(4, 2, 3, padding=1),
        t.Tanh(),
    )
    check(prepared(Translator(4, 2, 2)), translate, images(2, 2, 8, 6))
    judge = through(
        t.Conv2d(2, 4, 4, 2, 1),
        t.LeakyReLU(SLOPE),
        t.Conv2d(4, 8, 4, 2, 1, bias=False),
        t.InstanceNorm2d(8),
        t.LeakyReLU(SLOPE),
        t.Conv2d(8, 1, 3, padding=1),
    )
    check(prepared(PatchDiscriminator(4, 2)), judge, images(2, 2, 8, 12))


def test_the_style_based_generator(monkeypatch):
    pixels = [images(3, 1, side, side, seed=side) for side in (4, 4, 8, 8)]
    model = prepared(models.StyleGenerator(5, (6, 4), 2, mapping_layers=2))
    monkeypatch.setattr(model, "_noise", lambda count, layer: pixels[layer])

    def expected(p, z):
        w = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
        for i in range(2):
            w = f.leaky_relu(
                f.linear(w, p[f"mapping.layers.{i}.weight"], p[f"mapping.layers.{i}.bias"]), SLOPE
            )
        h = p["constant"]
        for i in range(4):
            name = f"layers.{i}"
            if i == 2:
                h = f.interpolate(h, scale_factor=2, mode="nearest")
            if i:
                h = f.conv2d(h, p[f"{name}.conv.weight"], padding=1)
            h = h + p[f"{name}.noise"] * torch.tensor(pixels[i]) + p[f"{name}.bias"]
            h = f.instance_norm(f.leaky_relu(h, SLOPE))
            style = f.linear(w, p[f"{name}.adain.style.weight"], p[f"{name}.adain.style.bias"])
            gain, bias = style[:, :, None, None].chunk(2, 1)
            h = h * (gain + 1) + bias
        return f.conv2d(h, p["output.weight"], p["output.bias"]).tanh()

    check(model, expected, images(3, 5))


@pytest.mark.parametrize("attention", [(), (0, 1)])
def test_the_unet(attention):
    model = prepared(models.UNet(2, 4, (1, 2), attention, groups=2))

    def expected(p, x, times):
        def conv(name, h, stride=1):
            weight = p[f"{name}.weight"]
            return f.conv2d(h, weight, p[f"{name}.bias"], stride, weight.shape[-1] // 2)

        def linear(name, h):
            return f.linear(h, p[f"{name}.weight"], p[f"{name}.bias"])

        def norm(name, h):
            return f.group_norm(h, 2, p[f"{name}.weight"], p[f"{name}.bias"])

        def block(name, h):
            inner = conv(f"{name}.conv1", f.silu(norm(f"{name}.norm1", h)))
            inner = inner + linear(f"{name}.time", time)[:, :, None, None]
            inner = conv(f"{name}.conv2", f.silu(norm(f"{name}.norm2", inner)))
            return inner + (conv(f"{name}.skip", h) if f"{name}.skip.weight" in p else h)

        def attend(name, h):
            if f"{name}.qkv.weight" not in p:
                return h
            flat = norm(f"{name}.norm", h).flatten(2).transpose(1, 2)
            q, k, v = linear(f"{name}.qkv", flat).chunk(3, -1)
            mixed = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]), -1) @ v
            return h + linear(f"{name}.out", mixed).transpose(1, 2).reshape(h.shape)

        embedded = torch.tensor(timestep_embedding(times.numpy(), 4)).double()
        time = f.silu(linear("time.2", f.silu(linear("time.0", embedded))))
        first = attend("down_attention.0", block("down.0", conv("input", x)))
        second = attend("down_attention.1", block("down.1", conv("shrink.0", first, 2)))
        h = block("middle", second)
        h = attend("up_attention.1", block("up.1", torch.cat([h, second], 1)))
        h = conv("grow.0", f.interpolate(h, scale_factor=2, mode="nearest"))
        h = attend("up_attention.0", block("up.0", torch.cat([h, first], 1)))
        return conv("output", f.silu(norm("norm", h)))

    check(model, expected, images(2, 2, 4, 6), np.array([3, 70]))
