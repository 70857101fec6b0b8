"""The networks of the paper's figures, with the names that the paper gives their layers.

Nothing in them is random after construction (no dropout, no dropped paths), and in evaluation mode
they treat the examples of a batch independently, as `curvature.capture` wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override


class LogisticRegression(nn.Module):
    """One logit without a bias, `images (N, ...) -> (N, 1)`: layer "linear", a `1 x n` weight.

    It starts at zero.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    @override
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.flatten(1))
        return logits


class _BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch normalization, on top of the input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    @override
    def forward(self, x: Tensor) -> Tensor:
        inside = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inside + self.downsample(x))


class ResNet18(nn.Module):
    """ResNet18 as torchvision has it (11.69M parameters for 1,000 classes), for any image size.

    Args:
        classes: number of outputs.
        width: channels of the first stage; the later ones have 2, 4 and 8 times as many.

    Source: He et al. 2016.
    """

    def __init__(self, classes: int, *, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, 1)
        self.layer2 = self._stage(width, 2 * width, 2)
        self.layer3 = self._stage(2 * width, 4 * width, 2)
        self.layer4 = self._stage(4 * width, 8 * width, 2)
        self.fc = nn.Linear(8 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(_BasicBlock(inputs, outputs, stride), _BasicBlock(outputs, outputs, 1))

    @override
    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class _ChannelsFirstNorm(nn.LayerNorm):
    """Layer normalization over the channels of `(N, C, H, W)`."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        normalized: Tensor = super().forward(x.permute(0, 2, 3, 1))
        return normalized.permute(0, 3, 1, 2)


class _ConvNeXtBlock(nn.Module):
    """A depthwise convolution and two pointwise ones, scaled, on top of the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))

    @override
    def forward(self, x: Tensor) -> Tensor:
        inside = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        inside = self.gamma * self.pwconv2(F.gelu(self.pwconv1(inside)))
        scaled: Tensor = inside.permute(0, 3, 1, 2)
        return x + scaled


class ConvNeXt(nn.Module):
    """ConvNeXt; the defaults are ConvNeXt-T (28.6M parameters for 1,000 classes).

    Args:
        classes: number of outputs.
        depths: blocks of each of the four stages.
        widths: channels of each.

    Source: Liu et al. 2022, without stochastic depth.
    """

    def __init__(
        self,
        classes: int,
        *,
        depths: Sequence[int] = (3, 3, 9, 3),
        widths: Sequence[int] = (96, 192, 384, 768),
    ) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), _ChannelsFirstNorm(widths[0], eps=1e-6))
        between = [
            nn.Sequential(_ChannelsFirstNorm(inputs, eps=1e-6), nn.Conv2d(inputs, outputs, 2, 2))
            for inputs, outputs in pairwise(widths)
        ]
        self.downsample_layers = nn.ModuleList([stem, *between])
        self.stages = nn.ModuleList(
            nn.Sequential(*(_ConvNeXtBlock(width) for _ in range(depth)))
            for width, depth in zip(widths, depths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.head = nn.Linear(widths[-1], classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    @override
    def forward(self, images: Tensor) -> Tensor:
        x = images
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        logits: Tensor = self.head(self.norm(x.mean((2, 3))))
        return logits


class _TransformerBlock(nn.Module):
    """Attention and a two-layer network, each normalized and on top of its input."""

    def __init__(self, width: int, mlp: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.projection = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.ffn1 = nn.Linear(width, mlp)
        self.ffn2 = nn.Linear(mlp, width)

    @override
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.projection(attended)
        inside: Tensor = self.ffn2(F.gelu(self.ffn1(self.norm2(x))))
        return x + inside


class ViT(nn.Module):
    """A vision transformer with a class token; the defaults are the paper's (Appendix A.1).

    The queries and keys of the fourth block are the first `2 width` rows of "blocks.3.qkv".

    Args:
        classes: number of outputs.
        image_size: side of the images.
        patch: side of a patch.
        width: entries of a token.
        mlp: of the hidden layer between "ffn1" and "ffn2".
        depth: number of blocks.
        heads: of attention.

    Source: Dosovitskiy et al. 2021.
    """

    def __init__(
        self,
        classes: int,
        *,
        image_size: int = 32,
        patch: int = 4,
        width: int = 512,
        mlp: int = 512,
        depth: int = 6,
        heads: int = 8,
    ) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(3, width, patch, patch)
        tokens = (image_size // patch) ** 2 + 1
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, tokens, width))
        self.blocks = nn.Sequential(*(_TransformerBlock(width, mlp, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    @override
    def forward(self, images: Tensor) -> Tensor:
        patches = self.embedding(images).flatten(2).mT
        x = torch.cat([self.class_token.expand(len(images), -1, -1), patches], 1)
        x = self.blocks(x + self.positions)
        logits: Tensor = self.head(self.norm(x[:, 0]))
        return logits
