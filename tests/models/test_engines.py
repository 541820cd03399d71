"""Every engine gives the features that torch gives; none is chosen that cannot run."""

import pickle

import pytest
import torch
from torch import nn

from models.encoders import CompactEncoder, resnet50_encoder
from models.engines import available_engines, choose_engine
from models.errors import EngineError
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
def test_cuda_without_a_device_is_refused():
    with pytest.raises(EngineError, match="CUDA device"):
        choose_engine("cuda")


def test_an_unknown_engine_is_refused_with_those_that_exist():
    with pytest.raises(EngineError, match="auto, torch, openvino, cuda"):
        choose_engine("tpu")  # type: ignore[arg-type]
