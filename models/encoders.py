"""The two network shapes behind Re-IQA features: the published one and the project's compact one.

Published: ResNet-50 v1.5 without its classifier, 2048 features, three input channels.
Compact: a ResNet-18 of quarter width on grey frames whose features are the spatial means of all
four stages. Defocus removes fine detail first, and fine detail lives in the early stages; a global
mean of the last stage alone would have to relearn it.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import resnet50
from torchvision.models.resnet import BasicBlock

Layout = Literal["published", "compact"]


def resnet50_encoder() -> nn.Module:
    """ResNet-50 v1.5 with ``fc`` removed: float32 (n, 3, h, w) -> (n, 2048), random weights.

    The 318 encoder tensors of the published Re-IQA checkpoints fit it strictly. The stride 2 of a
    stage sits in its 3x3 convolution (v1.5), as in torchvision.
    """
    network = resnet50(weights=None)
    network.fc = nn.Identity()
    return network


class CompactEncoder(nn.Module):
    """A ResNet-18 of quarter width on grey patches, read out at every stage.

    Parameters
    ----------
    width : int
        Channels of the first stage; the stages have ``width``, 2, 4 and 8 times as many.

    Attributes
    ----------
    feature_dim : int
        Features a patch: 15 * width (240 for width 16).
    projection_input : int
        Inputs of a contrastive projection head on these features; all of them, so that the
        training signal reaches the early stages directly.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.conv1 = nn.Conv2d(1, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.stages = nn.ModuleList(
            [
                _stage(width, width, stride=1),
                _stage(width, 2 * width, stride=2),
                _stage(2 * width, 4 * width, stride=2),
                _stage(4 * width, 8 * width, stride=2),
            ]
        )
        self.feature_dim = 15 * width
        self.projection_input = self.feature_dim
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Features of grey patches.

        Parameters
        ----------
        x : Tensor of shape (n, 1, h, w), float32
            Sides of at least 32 px; 256 and 128 px in use.

        Returns
        -------
        Tensor of shape (n, feature_dim), float32
            Spatial means after stage 1, 2, 3 and 4, in this order; not negative.
        """
        # The order of these two changes no value; a quarter of the pixels is left to `relu_`.
        x = torch.relu_(self.pool(self.bn1(self.conv1(x))))
        means = []
        for stage in self.stages:
            x = stage(x)
            means.append(x.mean(dim=(2, 3)))
        return torch.cat(means, dim=1)


def for_inference(encoder: nn.Module) -> nn.Module:
    """A frozen copy ready for the CPU: eval mode, BatchNorm folded, channels last.

    Folding changes results only by float32 rounding.
    """
    frozen = copy.deepcopy(encoder).eval()
    _fold_batch_norm(frozen)
    frozen.requires_grad_(False)
    return frozen.to(memory_format=torch.channels_last)


def weights_sha256(encoder: nn.Module) -> str:
    """SHA-256 of names, types, shapes and bytes of all weights and buffers, hexadecimal.

    Of the numbers, not of a file: equal for the same network however it was stored, different
    after any change of any value. Taken before `for_inference`.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        values = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name}|{values.dtype.str}|{values.shape}|".encode())
        digest.update(values.data)
    return digest.hexdigest()


def _stage(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm2d(outputs),
        )
    return nn.Sequential(
        BasicBlock(inputs, outputs, stride, shortcut), BasicBlock(outputs, outputs)
    )


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):  # He et al. 2015, as torchvision's ResNet
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _fold_batch_norm(module: nn.Module) -> None:
    """Fold every BatchNorm into the convolution declared right before it.

    In both architectures the order of declaration is the order of use.
    """
    conv: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and conv is not None:
            setattr(module, conv[0], fuse_conv_bn_eval(conv[1], child))
            setattr(module, name, nn.Identity())
        conv = (name, child) if isinstance(child, nn.Conv2d) else None
        _fold_batch_norm(child)
