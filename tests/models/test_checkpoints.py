"""The published files in every layout they may have, and everything that is not one of them."""

import argparse
import json
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.checkpoints import (
    import_published,
    load_compact_encoder,
    load_encoders,
    load_published_encoder,
    read_encoder_manifest,
    save_encoders,
)
from models.encoders import CompactEncoder, resnet50_encoder, weights_sha256
from models.errors import CheckpointError


def hollow(shape, dtype=torch.float32, value=0.0):
    """A tensor of any shape that takes no room in a file."""
    return torch.tensor(value, dtype=dtype).expand(shape)


@pytest.fixture(scope="module")
def weights():
    """One number a tensor: enough to see that each arrives where it belongs."""
    with torch.device("meta"):
        shapes = resnet50_encoder().state_dict().items()
    return {
        name: hollow(tensor.shape, tensor.dtype, value)
        for value, (name, tensor) in enumerate(shapes, start=1)
    }


@pytest.fixture
def write(tmp_path):
    """Save an object as a checkpoint; what an import makes of it (188 MB) is removed afterwards."""

    def save(checkpoint, name="r50.pth", **options):
        torch.save(checkpoint, tmp_path / name, **options)
        return tmp_path / name

    yield save
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()


HEAD = {
    "head.0.weight": hollow((2048, 2048)),
    "head.0.bias": hollow((2048,)),
    "head.2.weight": hollow((128, 2048)),
    "head.2.bias": hollow((128,)),
}


def named(weights, prefix=""):
    encoder = {f"{prefix}encoder.{name}": value for name, value in weights.items()}
    return OrderedDict(encoder | {prefix + name: value for name, value in HEAD.items()})


def as_trained(weights):
    """Everything `ContrastTrainer.save` writes, with the learning rate a numpy.float64."""
    lr = 0.03 * (0.1 ** np.sum(np.asarray([120, 160]) < 200))
    assert isinstance(lr, np.float64)
    return {
        "model": named(weights, "module."),
        "contrast": OrderedDict(memory=hollow((65536, 128))),
        "optimizer": {
            "state": {0: {"momentum_buffer": torch.zeros(3)}},
            "param_groups": [{"lr": lr, "momentum": 0.9, "params": [0]}],
        },
        "epoch": 200,
        "model_ema": OrderedDict(
            (name, hollow(value.shape, value.dtype)) for name, value in named(weights).items()
        ),
    }


LAYOUTS = {
    "as trained": as_trained,
    "model only, DDP": lambda w: {"model": named(w, "module.")},
    "model only": lambda w: {"model": named(w)},
    "state_dict": lambda w: {"state_dict": named(w, "module.")},
    "bare": lambda w: named(w, "module."),
    "encoder only": lambda w: {f"encoder.{name}": value for name, value in w.items()},
    "torchvision names": dict,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_published_layout_loads_to_the_same_encoder(write, weights, layout):
    encoder = load_published_encoder(write(LAYOUTS[layout](weights)))
    assert not encoder.training
    loaded = encoder.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


@pytest.mark.parametrize("layout", ["as trained", "bare"])
def test_the_format_before_pytorch_1_6_loads(write, weights, layout):
    path = write(LAYOUTS[layout](weights), _use_new_zipfile_serialization=False)
    assert weights_sha256(load_published_encoder(path)) == weights_sha256(
        load_published_encoder(write(dict(weights)))
    )


def changed(weights, **changes):
    return {"model": named(dict(weights) | changes, "module.")}


WRONG = {
    "a tensor is missing": (
        lambda w: {"model": {k: v for k, v in named(w).items() if "layer3.2.bn1.weight" not in k}},
        "missing layer3.2.bn1.weight",
    ),
    "a tensor is unknown": (
        lambda w: changed(w, **{"layer5.weight": torch.zeros(2)}),
        "unknown layer5.weight",
    ),
    "a wider network": (
        lambda w: changed(w, **{"conv1.weight": torch.zeros(128, 3, 7, 7)}),
        r"wrong conv1.weight \(128, 3, 7, 7\)",
    ),
    "half precision": (
        lambda w: changed(w, **{"conv1.weight": w["conv1.weight"].half()}),
        "float16",
    ),
    "a number is not finite": (
        lambda w: changed(w, **{"bn1.running_var": w["bn1.running_var"] * float("nan")}),
        r"bn1.running_var \(not finite\)",
    ),
    "another head": (
        lambda w: {"model": named(w, "module.") | {"module.head.4.weight": torch.zeros(2)}},
        "module.head.4.weight",
    ),
    "only the momentum copy": (lambda w: {"model_ema": named(w), "epoch": 3}, "model_ema"),
    "a classifier": (
        lambda w: dict(w) | {"fc.weight": hollow((9, 2048)), "fc.bias": hollow((9,))},
        "unknown fc.weight, fc.bias",
    ),
    "both with and without prefix": (
        lambda w: {"module.bn1.bias": torch.zeros(64), "bn1.bias": torch.zeros(64)},
        "both with and without",
    ),
    "a list": (lambda w: [1, 2], "list"),
    "nothing": (lambda w: {"model": {}}, "no named tensors"),
    "more than tensors": (
        lambda w: {"model": named(w), "opt": argparse.Namespace(lr=12)},
        "argparse.Namespace",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_anything_else_is_refused_by_name(write, weights, case):
    make, said = WRONG[case]
    with pytest.raises(CheckpointError, match=said):
        load_published_encoder(write(make(weights)))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize(
    "content",
    [b"", b"hello", pickle.dumps({"a": 1}), b"\x80\x04" * 30],
    ids=["empty", "text", "pickle", "garbage"],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "r50.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"r50\.pth"):
        load_published_encoder(path)


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no file"):
        load_published_encoder(tmp_path / "r50.pth")


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


def test_code_in_a_checkpoint_is_not_executed(write, weights, tmp_path):
    proof = tmp_path / "executed"
    with pytest.raises(CheckpointError, match="could execute code"):
        load_published_encoder(write({"model": dict(weights), "extra": Payload(proof)}))
    assert not proof.exists()


def test_import_writes_slim_files_that_load_to_the_same_weights(write, weights, tmp_path):
    other = dict(weights) | {"bn1.bias": torch.full((64,), 0.5)}
    folder = tmp_path / "published"
    sources = write(as_trained(weights), "content.pth"), write(changed(other), "quality.pth")
    manifest = import_published(*sources, folder)
    pair = load_encoders(folder)
    assert manifest == pair.manifest == read_encoder_manifest(folder)
    assert manifest.layout == "published"
    assert weights_sha256(pair.content) == weights_sha256(load_published_encoder(sources[0]))
    assert pair.quality.state_dict()["bn1.bias"].eq(0.5).all()
    assert manifest.facts["content_source"]["file"] == "content.pth"
    assert (folder / "content.safetensors").stat().st_size < 95e6


def test_the_same_file_twice_is_not_a_pair(write, weights, tmp_path):
    path = write(dict(weights))
    with pytest.raises(CheckpointError, match="same weights"):
        import_published(path, path, tmp_path / "published")
    assert not (tmp_path / "published").exists()


@pytest.fixture
def compact(tmp_path):
    torch.manual_seed(1)
    folder = tmp_path / "compact"
    save_encoders(folder, CompactEncoder(), CompactEncoder(), {"steps": 10})
    return folder


def test_a_compact_pair_survives_the_disk(tmp_path):
    content, quality = CompactEncoder(width=8), CompactEncoder(width=8)
    manifest = save_encoders(tmp_path, content, quality, {"recipe": "none"})
    pair = load_encoders(tmp_path)
    assert manifest.facts == {"recipe": "none"}
    assert manifest.content_sha256 == weights_sha256(content) == weights_sha256(pair.content)
    assert manifest.quality_sha256 == weights_sha256(quality) == weights_sha256(pair.quality)


def test_a_single_file_tells_its_width(compact):
    assert load_compact_encoder(compact / "content.safetensors").feature_dim == 240


def test_changed_weights_are_noticed(compact):
    path = compact / "quality.safetensors"
    tensors = load_file(path)
    tensors["bn1.bias"][3] += 1e-6
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_encoders(compact)


@pytest.mark.parametrize("name", ["content.safetensors", "manifest.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[1]"])
def test_damaged_files_are_refused_by_name(compact, name, content):
    (compact / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load_encoders(compact)


def test_absent_files_are_refused(compact, tmp_path):
    (compact / "quality.safetensors").unlink()
    with pytest.raises(CheckpointError, match="quality"):
        load_encoders(compact)
    with pytest.raises(CheckpointError, match="no encoders"):
        load_encoders(tmp_path / "nowhere")


def test_a_manifest_of_a_later_version_is_refused(compact):
    values = json.loads((compact / "manifest.json").read_text())
    (compact / "manifest.json").write_text(json.dumps(values | {"format": 2}))
    with pytest.raises(CheckpointError, match="format 2"):
        read_encoder_manifest(compact)


def test_two_layouts_are_not_a_pair(tmp_path):
    with pytest.raises(CheckpointError, match="one layout"):
        save_encoders(tmp_path, CompactEncoder(), resnet50_encoder(), {})
