"""Small networks of torchvision with one grey input, cut into five stages, that end in a score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small, resnet18

from models.checkpoints import read_pickle
from models.errors import CheckpointError

Backbone = Literal["resnet18", "mobilenet_v3_small"]

STAGES = 5

# Grey: the mean over the three channels of ImageNet's values.
_MEAN, _STD = 0.449, 0.226


class ScoreNetwork(nn.Module):
    """Patches to a score each, and the features it was made of; random weights when built.

    Parameters
    ----------
    backbone : {"resnet18", "mobilenet_v3_small"}
        K. He et al., "Deep residual learning for image recognition", CVPR 2016; A. Howard et al.,
        "Searching for MobileNetV3", ICCV 2019.

    Attributes
    ----------
    stages : nn.ModuleList
        A stem and four stages; all but the second halve the resolution.
    head : nn.Linear
        Spatial means of the last stage to one number.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        parts, features = _parts(_torchvision(backbone), backbone)
        self.stages = nn.ModuleList(parts)
        self.head = nn.Linear(features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Score patches.

        Parameters
        ----------
        x : Tensor of shape (n, 1, h, w), float32
            In [0, 1].

        Returns
        -------
        Tensor of shape (n, 1 + features), float32
            Column 0 is the logit of the score: 0 is a score of 0.5, more is sharper.
        """
        x = (x - _MEAN) / _STD
        for stage in self.stages:
            x = stage(x)
        features = x.mean(dim=(2, 3))
        return torch.cat([self.head(features), features], dim=1)

    def train_last(self, stages: int) -> None:
        """Let the head and this many of the last stages learn, and freeze the others whole."""
        self.requires_grad_(True)
        self.train()
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1  # MobileNet's 0.01 would take longer than a whole training
        for stage in list(self.stages)[: STAGES - stages]:
            stage.requires_grad_(False)
            stage.eval()  # else batch normalisation would go on learning


def pretrained(backbone: Backbone, path: Path) -> ScoreNetwork:
    """Network that begins with torchvision's weights; its head stays random.

    Parameters
    ----------
    path : Path
        State dict of torchvision's model for three colours and any number of classes, such as the
        ``.pth`` file that torchvision publishes. The three colours are added up: a grey frame gives
        what it would give as R = G = B.

    Raises
    ------
    CheckpointError
        When the file cannot be read without executing code from it, or is of another network.
    """
    tensors = read_pickle(path)
    if not isinstance(tensors, Mapping):
        raise CheckpointError(f"{path} holds a {type(tensors).__name__}, not named tensors")
    source = _torchvision(backbone)
    own = {name: value for name, value in source.state_dict().items() if _classifies(name)}
    given = {str(name): value for name, value in tensors.items() if not _classifies(str(name))}
    try:
        source.load_state_dict({**given, **own})
    except (RuntimeError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())[:400]
        raise CheckpointError(f"{path} does not fit torchvision's {backbone}: {said}") from error
    if not all(tensor.isfinite().all() for tensor in source.state_dict().values()):
        raise CheckpointError(f"{path} holds weights that are not finite")
    network = ScoreNetwork(backbone)
    network.stages = nn.ModuleList(_parts(source, backbone)[0])
    return network


def _torchvision(backbone: Backbone) -> Any:
    build = resnet18 if backbone == "resnet18" else mobilenet_v3_small
    return build(weights=None)


def _classifies(name: str) -> bool:
    return name.startswith(("fc.", "classifier."))


def _parts(model: Any, backbone: Backbone) -> tuple[list[nn.Sequential], int]:
    """Five stages, and the number of features that leave the last one."""
    if backbone == "resnet18":
        stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
        return [_grey(stem), model.layer1, model.layer2, model.layer3, model.layer4], 512
    blocks = model.features
    return [_grey(blocks[0]), blocks[1:2], blocks[2:4], blocks[4:9], blocks[9:13]], 576


def _grey(stem: nn.Sequential) -> nn.Sequential:
    """The stem with a first convolution of one channel, its weights those of all colours added."""
    colour: Any = stem[0]
    window = (colour.kernel_size, colour.stride, colour.padding)
    grey = nn.Conv2d(1, colour.out_channels, *window, bias=False)
    grey.weight = nn.Parameter(colour.weight.detach().sum(dim=1, keepdim=True))
    stem[0] = grey
    return stem
