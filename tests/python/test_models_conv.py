"""LeNet and ResNet: the same numbers as PyTorch's functions on the same weights."""

from __future__ import annotations

import pytest
from torch_reference import close, f, images, prepared, torch, weights

from vectile import models


@pytest.mark.parametrize("size", [16, 28])
def test_lenet(size):
    model = prepared(models.LeNet(size, 2, 5))
    p, x = weights(model), images(3, 2, size, size)
    h = torch.tensor(x)
    for index, padding in (("0", 2), ("3", 0)):
        h = f.conv2d(h, p[f"features.{index}.weight"], p[f"features.{index}.bias"], padding=padding)
        h = f.avg_pool2d(torch.tanh(h), 2)
    h = h.flatten(1)
    for index in "024":
        h = f.linear(h, p[f"classifier.{index}.weight"], p[f"classifier.{index}.bias"])
        h = torch.tanh(h) if index != "4" else h
    close(model(x), h)
    with pytest.raises(ValueError, match="size"):
        models.LeNet(8)


def resnet(p, x, stages, large, training):
    """A residual network in PyTorch's functions, from torchvision's keys."""

    def norm(h, name):
        mean, variance = p[f"{name}.running_mean"], p[f"{name}.running_var"]
        gain, bias = p[f"{name}.weight"], p[f"{name}.bias"]
        return f.batch_norm(h, mean, variance, gain, bias, training)

    h = f.conv2d(x, p["conv1.weight"], stride=2 if large else 1, padding=3 if large else 1)
    h = f.relu(norm(h, "bn1"))
    h = f.max_pool2d(h, 3, 2, 1) if large else h
    for stage, blocks in enumerate(stages, 1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if block == 0 and stage > 1 else 1
            identity = h
            if f"{name}.downsample.0.weight" in p:
                identity = f.conv2d(h, p[f"{name}.downsample.0.weight"], stride=stride)
                identity = norm(identity, f"{name}.downsample.1")
            h = f.conv2d(h, p[f"{name}.conv1.weight"], stride=stride, padding=1)
            h = f.conv2d(f.relu(norm(h, f"{name}.bn1")), p[f"{name}.conv2.weight"], padding=1)
            h = f.relu(norm(h, f"{name}.bn2") + identity)
    return f.linear(h.mean((2, 3)), p["fc.weight"], p["fc.bias"])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("stem", ["small", "large"])
def test_resnet(stem, training):
    model = prepared(models.ResNet((2, 1), (4, 6), 3, 2, stem)).train(training)
    p, x = weights(model), images(3, 2, 17, 12)
    for value in p.values():
        value.requires_grad_(value.is_floating_point())
    p |= {k: v.detach() for k, v in p.items() if "running" in k}
    expected = resnet(p, torch.tensor(x), (2, 1), stem == "large", training)
    out = model(x)
    close(out, expected)
    expected.square().sum().backward()
    (out * out).sum().backward()
    for name, parameter in model.named_parameters():
        close(parameter.grad, p[name].grad)


def test_resnet18_has_torchvisions_keys_and_size():
    model = models.resnet18()
    assert sum(p.size for p in model.parameters()) == 11_689_512
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert len(shapes) == 122  # of torchvision.models.resnet18
    assert shapes["layer4.0.downsample.0.weight"] == (512, 256, 1, 1)
    assert shapes["layer2.1.bn2.running_var"] == (128,)
    assert shapes["layer1.0.conv1.weight"] == (64, 64, 3, 3)
    assert shapes["bn1.num_batches_tracked"] == () and shapes["fc.weight"] == (1000, 512)
    assert "layer1.0.downsample.0.weight" not in shapes
    with pytest.raises(ValueError, match="stem"):
        models.ResNet(stem="medium")
    with pytest.raises(ValueError, match="widths"):
        models.ResNet((1, 1), (4,))
