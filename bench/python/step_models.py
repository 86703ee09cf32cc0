"""The models that bench_step.py trains, and torch's twins of them with the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness import torch
from vectile import nn, random
from vectile.models import GPT, DCDiscriminator, DCGenerator, GPTConfig, ResNet
from vectile.models.char_rnn import CharRNN, CharRNNConfig


def gpt(context: int = 64, n_layers: int = 4, n_heads: int = 4, d_model: int = 128) -> GPT:
    random.manual_seed(0)
    return GPT(GPTConfig(256, context, n_layers, n_heads, d_model))


def char_rnn() -> CharRNN:
    random.manual_seed(0)
    return CharRNN(CharRNNConfig(vocab_size=256, embedding=256, hidden=256, n_layers=2))


def mlp() -> nn.Sequential:
    random.manual_seed(0)
    layers = (nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    return nn.Sequential(*layers)


def tiny() -> nn.Sequential:
    random.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))


def cnn() -> nn.Sequential:
    random.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 10),
    )


class Players(nn.Module):
    """Both networks of a DCGAN (arXiv 1511.06434) of 16 x 16 images, 64 and 128 channels wide."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = DCGenerator(latent=64, width=64)
        self.discriminator = DCDiscriminator(width=64)


def dcgan() -> Players:
    random.manual_seed(0)
    return Players()


def resnet() -> ResNet:
    """ResNet-18 whose stem keeps all of a 32 x 32 image, as for CIFAR: 0.56 G products an image."""
    random.manual_seed(0)
    return ResNet(classes=10, stem="small")


# ---- in torch --------------------------------------------------------------------------------------


def in_torch(model: Any) -> Any:
    """The same model in torch's modules, with the same weights."""
    state = {k: torch.from_numpy(np.array(v)) for k, v in model.state_dict().items()}
    twin = _TWINS[type(model)](model)
    twin.load_state_dict(state)
    return twin


def torch_sequential(model: nn.Sequential) -> Any:
    return torch.nn.Sequential(*map(torch_layer, model))


def torch_layer(m: Any) -> Any:
    kind = getattr(torch.nn, type(m).__name__)
    if isinstance(m, nn.Linear):
        return kind(m.in_features, m.out_features)
    if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
        sizes = m.kernel_size, m.stride, m.padding
        return kind(m.in_channels, m.out_channels, *sizes, bias=m.bias is not None)
    if isinstance(m, nn.BatchNorm2d):
        return kind(m.num_features)
    if isinstance(m, nn.LeakyReLU):
        return kind(m.negative_slope)
    if isinstance(m, nn.MaxPool2d):
        return kind(m.kernel_size)
    if isinstance(m, nn.Dropout):
        return kind(m.p)
    return kind()


def torch_gpt(model: GPT) -> Any:
    config = model.config
    d, heads = config.d_model, config.n_heads
    F = torch.nn.functional

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = torch.nn.Linear(d, 3 * d), torch.nn.Linear(d, d)

        def forward(self, x: Any) -> Any:
            b, t, _ = x.shape
            q, k, v = self.qkv(x).view(b, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out(y.transpose(1, 2).reshape(b, t, d))

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.attention = torch.nn.LayerNorm(d), Attention()
            self.norm2 = torch.nn.LayerNorm(d)
            self.up, self.down = torch.nn.Linear(d, 4 * d), torch.nn.Linear(4 * d, d)

        def forward(self, x: Any) -> Any:
            x = x + self.attention(self.norm1(x))
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = torch.nn.Embedding(config.vocab_size, d)
            self.positions = torch.nn.Embedding(config.context, d)
            self.blocks = torch.nn.ModuleList(Block() for _ in range(config.n_layers))
            self.norm = torch.nn.LayerNorm(d)
            self.head = torch.nn.Linear(d, config.vocab_size, bias=False)
            self.head.weight = self.tokens.weight

        def forward(self, ids: Any, targets: Any) -> Any:
            x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
            for block in self.blocks:
                x = block(x)
            return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())

    return Model()


def torch_char_rnn(model: CharRNN) -> Any:
    config = model.config

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(config.vocab_size, config.embedding)
            self.rnn = torch.nn.LSTM(
                config.embedding, config.hidden, config.n_layers, batch_first=True
            )
            self.head = torch.nn.Linear(config.hidden, config.vocab_size)

        def loss(self, ids: Any, targets: Any) -> Any:
            logits = self.head(self.rnn(self.embedding(ids))[0])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
            return loss, None

    return Model()


def torch_players(model: Players) -> Any:
    class Generator(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch_sequential(model.generator.net)

        def forward(self, z: Any) -> Any:
            return self.net(z[:, :, None, None])

    class Discriminator(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch_sequential(model.discriminator.net)

        def forward(self, images: Any) -> Any:
            return self.net(images).flatten()

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator, self.discriminator = Generator(), Discriminator()

    return Both()


def torch_resnet(model: ResNet) -> Any:
    F = torch.nn.functional

    class Block(torch.nn.Module):
        def __init__(self, block: Any) -> None:
            super().__init__()
            self.conv1, self.bn1 = torch_layer(block.conv1), torch_layer(block.bn1)
            self.conv2, self.bn2 = torch_layer(block.conv2), torch_layer(block.bn2)
            self.downsample = block.downsample and torch_sequential(block.downsample)

        def forward(self, x: Any) -> Any:
            identity = self.downsample(x) if self.downsample else x
            out = F.relu(self.bn1(self.conv1(x)), inplace=True)
            return F.relu(self.bn2(self.conv2(out)).add_(identity), inplace=True)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = torch_layer(model.conv1), torch_layer(model.bn1)
            self.names = [f"layer{i + 1}" for i in range(model.stages)]
            for name in self.names:
                blocks = map(Block, model.get_submodule(name))
                self.add_module(name, torch.nn.Sequential(*blocks))
            self.fc = torch_layer(model.fc)

        def forward(self, images: Any) -> Any:
            x = F.relu(self.bn1(self.conv1(images)), inplace=True)
            for name in self.names:
                x = getattr(self, name)(x)
            return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))

    return Model()


_TWINS = {
    nn.Sequential: torch_sequential,
    GPT: torch_gpt,
    CharRNN: torch_char_rnn,
    Players: torch_players,
    ResNet: torch_resnet,
}
