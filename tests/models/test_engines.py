"""Every engine gives the features that torch gives; none is chosen that cannot run."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from models.checkpoints import load_encoders
from models.encoders import CompactEncoder, resnet50_encoder
from models.engines import Engine, available_engines, bfloat16_is_faster, choose_engine
from models.errors import EngineError
from models.registry import Registry, builtin_folder
from models.reiqa import ReIQA
from models.side_by_side import HalfTheThreads


@pytest.fixture
def encoder() -> nn.Module:
    torch.manual_seed(0)
    return CompactEncoder(8).eval()


@pytest.fixture
def patches() -> torch.Tensor:
    return torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(1))


def relative_l2(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_torch_gives_what_the_encoder_gives(encoder, patches):
    run = choose_engine("torch").compile(encoder)
    with torch.inference_mode():
        assert relative_l2(run(patches), encoder(patches)) < 1e-5


@pytest.mark.parametrize("size", [64, 128])
def test_openvino_gives_what_torch_gives_at_every_size(encoder, size):
    pytest.importorskip("openvino", reason="needs the extra `openvino`")
    run = choose_engine("openvino").compile(encoder)
    for count in (1, 3):
        x = torch.rand(count, 1, size, size)
        with torch.inference_mode():
            assert relative_l2(run(x), encoder(x)) < 1e-4


def test_openvino_runs_the_published_layout(patches):
    pytest.importorskip("openvino", reason="needs the extra `openvino`")
    torch.manual_seed(0)
    published = resnet50_encoder().eval()
    x = patches.expand(-1, 3, -1, -1)
    with torch.inference_mode():
        assert relative_l2(choose_engine("openvino").compile(published)(x), published(x)) < 1e-4


def test_what_openvino_compiled_can_go_to_another_process(encoder, patches):
    pytest.importorskip("openvino", reason="needs the extra `openvino`")
    run = choose_engine("openvino").compile(encoder)
    wanted = run(patches)
    assert torch.equal(pickle.loads(pickle.dumps(run))(patches), wanted)


def test_two_encoders_can_be_converted_at_once(encoder, patches, set_threads):
    pytest.importorskip("openvino", reason="needs the extra `openvino`")
    set_threads(2)
    engine = choose_engine("openvino")
    other = CompactEncoder(8).eval()
    one, two = engine.compile(encoder), engine.compile(other)
    found = HalfTheThreads()(lambda: one(patches), lambda: two(patches))
    with torch.inference_mode():
        assert relative_l2(found[0], encoder(patches)) < 1e-4
        assert relative_l2(found[1], other(patches)) < 1e-4


@pytest.mark.parametrize("layout", ["published", "compact"])
def test_auto_says_why(layout):
    engine = choose_engine("auto", layout)
    assert engine.reason.startswith("auto: ")
    assert engine.name == "cuda" or "no CUDA device" in engine.reason
    assert engine.name in available_engines()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_auto_converts_no_small_networks():
    assert choose_engine("auto", "compact").name == "torch"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_bfloat16_only_for_small_networks_by_auto_where_the_cpu_multiplies_it_faster():
    auto = choose_engine("auto", "compact")
    assert auto.bfloat16 == bfloat16_is_faster() == ("bfloat16" in auto.reason)
    assert not choose_engine("torch", "compact").bfloat16
    assert not choose_engine("auto", "published").bfloat16


@pytest.mark.parametrize(
    ("capabilities", "faster"),
    [
        ({"cpu_name": "Intel(R) Xeon(R)", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "Intel(R) Xeon(R)", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"cpu_name": "AMD EPYC 9655", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"cpu_name": "AMD EPYC 7763", "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True}, False),
        ({}, False),
    ],
)
def test_bfloat16_is_faster_on_amx_and_on_the_vectors_of_amd_alone(
    monkeypatch, capabilities, faster
):
    """What torch says of processors that are not here."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert bfloat16_is_faster() is faster


def test_bfloat16_moves_features_little_and_gives_them_in_float32(encoder, patches):
    run = Engine("torch", "to compare", bfloat16=True).compile(encoder)
    with torch.inference_mode():
        found, exact = run(patches), encoder(patches)
    assert found.dtype == torch.float32
    assert 0 < relative_l2(found, exact) < 0.01


def test_bfloat16_moves_a_score_by_less_than_its_noise(demo_frames):
    exact = Registry([builtin_folder()], "torch").load_scorer("reiqa-compact")
    pair = load_encoders(builtin_folder() / "compact")
    halves = Engine("torch", "to compare", bfloat16=True)
    coarse = ReIQA(pair.content, pair.quality, exact.extractor.settings, halves)

    def scores(extractor):
        features = (extractor.features(frame) for frame in demo_frames.values())
        return np.array([exact.fitted.predict(each, 0.6).score for each in features])

    assert np.ptp(scores(exact.extractor)) > 0.3
    assert 0 < np.abs(scores(coarse) - scores(exact.extractor)).max() < 0.01


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_refused():
    with pytest.raises(EngineError, match="CUDA device"):
        choose_engine("cuda")


def test_an_unknown_engine_is_refused_with_those_that_exist():
    with pytest.raises(EngineError, match="auto, torch, openvino, cuda"):
        choose_engine("tpu")  # type: ignore[arg-type]
