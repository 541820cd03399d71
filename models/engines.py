"""What runs the frozen encoders: torch on the CPU, OpenVINO where it is installed, or CUDA.

In float32, but for the compact encoders on a CPU that multiplies bfloat16 faster: there `auto`
takes that, which halves their time and moves a score by a thousandth (decision 9). On other CPUs
bfloat16 is slower; halves on CUDA would need every head to be checked again.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from models.encoders import Layout, for_inference
from models.errors import EngineError

EngineName = Literal["torch", "openvino", "cuda"]
EngineChoice = Literal["auto", "torch", "openvino", "cuda"]
Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Engine:
    """Something that runs encoders.

    Attributes
    ----------
    name : {"torch", "openvino", "cuda"}
    reason : str
        Why it was chosen, for people.
    bfloat16 : bool
        Whether torch computes in bfloat16, on the CPU.
    """

    name: EngineName
    reason: str
    bfloat16: bool = False

    def compile(self, encoder: nn.Module) -> Forward:
        """Make a frozen encoder ready: float32 (n, c, h, w) on the CPU -> (n, features) there.

        Float32 on both sides, whatever is computed in between. The encoder is copied.
        """
        if self.name == "openvino":
            return _OpenVINO(encoder)
        device = torch.device("cuda" if self.name == "cuda" else "cpu")
        dtype = torch.bfloat16 if self.bfloat16 else torch.float32
        return _Torch(for_inference(encoder).to(device, dtype), device, dtype)


def choose_engine(choice: EngineChoice = "auto", layout: Layout = "published") -> Engine:
    """Return the engine asked for, or with ``auto`` the best one here for encoders of this layout.

    ``auto`` takes CUDA, then OpenVINO, then torch; for the compact layout never OpenVINO, which is
    no faster on such small networks and takes seconds to convert them, and torch in bfloat16 where
    `bfloat16_is_faster` (decision 9). Engines asked for by name compute in float32.

    Raises
    ------
    EngineError
        When the one asked for cannot run here, with what to do.
    """
    if choice not in get_args(EngineChoice):
        raise EngineError(
            f"no engine is called {choice!r}; use {', '.join(get_args(EngineChoice))}"
        )
    if choice != "auto":
        _require_available(choice)
        return Engine(choice, "asked for")
    if torch.cuda.is_available():
        return Engine("cuda", f"auto: {torch.cuda.get_device_name()} is there")
    if layout == "compact":
        return _for_small_networks()
    if _has_openvino():
        return Engine("openvino", "auto: no CUDA device, and openvino is installed")
    return Engine("torch", "auto: no CUDA device, and openvino is not installed")


def available_engines() -> tuple[EngineName, ...]:
    """Engines that can run here, torch first."""
    names: list[EngineName] = ["torch"]
    if _has_openvino():
        names.append("openvino")
    if torch.cuda.is_available():
        names.append("cuda")
    return tuple(names)


def bfloat16_is_faster() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32: Intel's AMX, AMD's AVX-512.

    On an Intel, AVX-512 with bfloat16 alone took 57 ms where float32 took 37, and AMX 20 where it
    took 41; on an AMD of family 26 AVX-512 with bfloat16 took 17 where float32 took 27 (compact
    encoders of different width, 7 patches of 256 px, one thread; decision 9). A torch that cannot
    tell has none. Asked of the CPU: where ``ONEDNN_MAX_CPU_ISA`` forbids the unit, take engine
    ``torch``.
    """
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    by_amd = str(capabilities.get("cpu_name", "")).startswith("AMD")
    return bool(capabilities.get("amx_bf16") or (by_amd and capabilities.get("avx512_bf16")))


def _for_small_networks() -> Engine:
    reason = "auto: no CUDA device, and small networks are not worth converting"
    if bfloat16_is_faster():
        return Engine("torch", f"{reason}; in bfloat16, which this CPU multiplies faster", True)
    return Engine("torch", reason)


def _require_available(name: EngineName) -> None:
    if name == "cuda" and not torch.cuda.is_available():
        raise EngineError("engine cuda needs a CUDA device that torch can use; take auto or torch")
    if name == "openvino" and not _has_openvino():
        raise EngineError(
            "engine openvino is not installed: pip install 'reiqa-autofocus[openvino]', "
            "or take auto or torch"
        )


def _has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


class _Torch:
    def __init__(self, encoder: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self._encoder, self._device, self._dtype = encoder, device, dtype

    def __call__(self, x: Tensor) -> Tensor:
        placed = x.to(self._device, self._dtype).contiguous(memory_format=torch.channels_last)
        features: Tensor = self._encoder(placed)
        return features.to("cpu", torch.float32)


class _OpenVINO:
    """Converted once, when first used; compiled for each shape it meets, which takes 0.3 s."""

    # One for all encoders: torch.export promises nothing to two threads at once.
    _converting = threading.Lock()

    def __init__(self, encoder: nn.Module) -> None:
        self._encoder = for_inference(encoder).to(memory_format=torch.contiguous_format)
        self._forget()

    def _forget(self) -> None:
        self._model: Any = None
        self._compiled: dict[tuple[int, ...], Any] = {}

    def __getstate__(self) -> nn.Module:
        """Without what is compiled: another process compiles for itself."""
        return self._encoder

    def __setstate__(self, encoder: nn.Module) -> None:
        self._encoder = encoder
        self._forget()

    def __call__(self, x: Tensor) -> Tensor:
        shape = tuple(x.shape)
        if shape not in self._compiled:
            self._compiled[shape] = self._compile(shape)
        # A request of its own for every call: one request must not serve two threads at once.
        request = self._compiled[shape].create_infer_request()
        found = request.infer([x.contiguous().numpy()])
        return torch.from_numpy(found[0].copy())

    def _compile(self, shape: tuple[int, ...]) -> Any:
        import openvino

        with self._converting:
            if self._model is None:
                self._model = openvino.convert_model(_exported(self._encoder, channels=shape[1]))
        model = self._model.clone()
        model.reshape(list(shape))
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # Two networks that run at the same time could be pinned to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        return openvino.compile_model(model, "CPU", settings)


def _exported(encoder: nn.Module, *, channels: int) -> torch.export.ExportedProgram:
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
    # Two patches: torch takes an example of one for a constant.
    example = torch.zeros(2, channels, 64, 64)
    return torch.export.export(encoder, (example,), dynamic_shapes=(sizes,))
