"""``POST /score``: uploaded frames get exactly the scores that a scorer gives them here."""

from __future__ import annotations

import io
import json
import socket
import statistics
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
import tifffile
from compact_models import SIDE, frame, install
from demo_service import assert_problem, begin_long_run, demo_rig, serving, when_over

from autofocus.scorers import registry_of
from autofocus.service.frames import read_frames
from models.errors import ImageError
from models.patches import Anchor
from models.reiqa_scorer import ReIQAScorer
from models.scorer import FrameScore

MAX_UPLOAD_BYTES = 4 << 20


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("score")
    install(folder / "models")
    return replace(demo_rig(folder / "runs"), models_dir=folder / "models", scorer="reiqa-compact")


@pytest.fixture(scope="module")
def client(rig) -> Iterator[httpx.Client]:
    with serving(rig, max_upload_bytes=MAX_UPLOAD_BYTES) as client:
        yield client


@pytest.fixture(scope="module")
def learned(rig) -> ReIQAScorer:
    """The same scorer, loaded a second time."""
    scorer = registry_of(rig).load_scorer("reiqa-compact")
    assert isinstance(scorer, ReIQAScorer)
    return scorer


def tiff(planes: np.ndarray, **how) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, planes, **{"photometric": "minisblack", **how})
    return buffer.getvalue()


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def score(client: httpx.Client, content: bytes, name: str = "a.bin", **fields) -> httpx.Response:
    return client.post("/score", files={"file": (name, content)}, data=fields)


def said(answer: httpx.Response) -> list[FrameScore]:
    assert answer.status_code == 200, answer.text
    entries = answer.json()["scores"]
    return [FrameScore(**{n: v for n, v in e.items() if n != "z_um"}) for e in entries]


def patches_of(image: np.ndarray, scorer: ReIQAScorer) -> Anchor:
    """What is sent back: every frame is normalised by itself."""
    return replace(scorer.anchor(image), normalisation=None)


STACK = np.stack([frame(blur_px=d, seed=i) for i, d in enumerate((3.0, 0.0, 2.0))])


def test_one_frame_gets_the_scorers_own_score_and_an_anchor(
    client: httpx.Client, learned: ReIQAScorer
) -> None:
    answer = score(client, tiff(STACK[0]))

    assert said(answer) == [learned.score(STACK[0])]
    body = answer.json()
    assert (body["scorer"], body["head"]) == ("reiqa-compact", learned.head)
    assert body["referee"] == learned.referee.name
    assert body["scores"][0]["referee"] is not None
    assert body["best"] == 0
    assert Anchor.from_dict(body["anchor"]) == patches_of(STACK[0], learned)


def test_the_sampling_of_the_camera_reaches_the_head(
    client: httpx.Client, learned: ReIQAScorer
) -> None:
    answer = score(client, tiff(STACK[0]), sampling="0.2")

    assert said(answer) == [learned.score(STACK[0], sampling=0.2)]
    assert said(answer) != [learned.score(STACK[0])]
    assert_problem(score(client, tiff(STACK[0]), sampling="0"), 422, "invalid-request")


def test_the_next_frame_is_scored_on_the_anchor_sent_back(
    client: httpx.Client, learned: ReIQAScorer
) -> None:
    first = score(client, tiff(STACK[0])).json()["anchor"]
    answer = score(client, tiff(STACK[1]), anchor=json.dumps(first))

    anchor = patches_of(STACK[0], learned)
    assert said(answer) == [learned.score(STACK[1], anchor=anchor)]
    assert said(answer) != [learned.score(STACK[1])]
    assert answer.json()["anchor"] == first


@pytest.mark.parametrize("ome", [False, True], ids=["TIFF", "OME-TIFF"])
@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"bigtiff": True}], ids=str)
def test_a_stack_gets_one_score_a_plane(
    client: httpx.Client, learned: ReIQAScorer, ome: bool, how: dict
) -> None:
    metadata = {"axes": "ZYX", "PhysicalSizeZ": 0.5, "PhysicalSizeZUnit": "µm"} if ome else None
    answer = score(client, tiff(STACK, ome=ome, metadata=metadata, **how))

    alone = [learned.score(plane) for plane in STACK]
    assert said(answer) == alone
    found = [entry["z_um"] for entry in answer.json()["scores"]]
    assert found == ([0.0, 0.5, 1.0] if ome else [None] * 3)
    best = max(range(3), key=lambda plane: alone[plane].score)
    assert answer.json()["best"] == best
    assert Anchor.from_dict(answer.json()["anchor"]) == patches_of(STACK[best], learned)


@pytest.mark.parametrize("name", ["tenengrad", "vollath_f4"])
def test_a_classical_measure_takes_and_gives_no_anchor(
    client: httpx.Client, rig, name: str
) -> None:
    answer = score(client, tiff(STACK), scorer=name)

    scorer = registry_of(rig).load_scorer(name)
    assert said(answer) == [scorer.score(plane) for plane in STACK]
    body = answer.json()
    assert (body["scorer"], body["head"], body["referee"]) == (name, None, None)
    assert body["anchor"] is None
    # What was answered may always be sent back.
    assert said(score(client, tiff(STACK), scorer=name, anchor="null")) == said(answer)


def test_png_and_raw_counts_score_as_the_same_tiff(client: httpx.Client) -> None:
    expected = said(score(client, tiff(STACK)))
    size = {"width": SIDE, "height": SIDE}

    assert said(score(client, png(STACK[0]))) == expected[:1]
    assert said(score(client, STACK.tobytes(), dtype="uint16", **size)) == expected
    # Looks like a TIFF by its first counts, but was said to be raw.
    disguised = b"II*\0" + STACK[0].tobytes()[4:]
    assert len(said(score(client, disguised, dtype="uint16", **size))) == 1


def test_colour_is_scored_as_the_mean_of_its_channels(
    client: httpx.Client, learned: ReIQAScorer
) -> None:
    red, green, blue = (STACK // 4).astype(np.uint8)
    mean = np.stack([red, green, blue]).mean(axis=0, dtype=np.float32).round().astype(np.uint8)
    colour = np.dstack([red, green, blue])

    for content in (tiff(colour, photometric="rgb"), png(colour[..., ::-1])):
        assert said(score(client, content)) == [learned.score(mean)]


def test_the_bit_depth_decides_what_is_saturated(client: httpx.Client) -> None:
    bright = np.where(STACK[0] > 400, 5000, STACK[0]).astype(np.uint16)

    assert [s.saturated for s in said(score(client, tiff(bright)))] == [False]
    assert [s.saturated for s in said(score(client, tiff(bright), bit_depth=12))] == [True]


def test_a_pile_up_at_a_full_scale_is_seen_without_being_told(client: httpx.Client) -> None:
    full = np.where(STACK[0] > 400, 4095, STACK[0]).astype(np.uint16)

    assert [s.saturated for s in said(score(client, tiff(full)))] == [True]


def test_fields_left_empty_in_a_browser_count_as_left_out(client: httpx.Client) -> None:
    empty = dict.fromkeys(["scorer", "head", "anchor", "bit_depth", "width", "dtype"], "")

    assert said(score(client, tiff(STACK[0]), **empty)) == said(score(client, tiff(STACK[0])))


@pytest.mark.parametrize(
    ("content", "fields", "kind", "says"),
    [
        (b"", {}, "image", "neither TIFF nor PNG"),
        (b"GIF89a" + bytes(100), {}, "image", "neither TIFF nor PNG"),
        (b"\x80\x04cos\nsystem\n(S'true'\ntR.", {}, "image", "neither TIFF nor PNG"),
        (tiff(STACK)[: STACK.nbytes // 2], {}, "image", "cut short"),
        (tiff(STACK, metadata=None)[:-20], {}, "image", "cut short"),
        (tiff(STACK, compression="zlib")[:90_000], {}, "image", "cut short"),
        (tiff(STACK, compression="lzma"), {}, "image", "LZMA"),
        (png(STACK[0])[:20_000], {}, "image", "not an image that can be read"),
        (b"II*\0\x08\0\0\0" + bytes(8), {}, "image", "0 x 0 px"),
        (tiff(np.full((9, 9), np.nan, np.float32)), {}, "image", "not finite"),
        (tiff(np.zeros((9, 9), np.complex64)), {}, "image", "complex"),
        (bytes(10), {"width": 2, "height": 2, "dtype": "uint16"}, "image", "10 bytes"),
        (b"", {"width": 2, "height": 2, "dtype": "uint16"}, "image", "0 bytes"),
        (bytes(8), {"width": 65535, "height": 65535, "dtype": "uint8"}, "image", "65535 x 65535"),
        (bytes(8), {"width": 2, "height": 2}, "invalid-request", "dtype"),
        (bytes(8), {"width": 2, "height": 2, "dtype": "object"}, "invalid-request", "dtype"),
        (tiff(STACK[0]), {"bit_depth": 0}, "invalid-request", "bit_depth"),
        (tiff(STACK[0]), {"gain": 3}, "invalid-request", "gain"),
        (tiff(STACK[0]), {"anchor": "{"}, "invalid-request", "anchor"),
        (tiff(STACK[0]), {"anchor": "{}"}, "image", "anchor"),
        (tiff(STACK[0]), {"anchor": "[]"}, "invalid-request", "anchor"),
        (tiff(STACK[0]), {"scorer": "clairvoyance"}, "unknown-scorer", "reiqa-compact"),
        (tiff(STACK[0]), {"scorer": "reiqa-published"}, "unknown-scorer", "import"),
        (tiff(STACK[0]), {"head": "../head"}, "head-mismatch", "default"),
    ],
)
def test_refuses_what_it_cannot_score_and_says_why(
    client: httpx.Client, content: bytes, fields: dict, kind: str, says: str
) -> None:
    problem = assert_problem(score(client, content, **fields), 422, kind)

    assert says in problem["detail"]
    assert "/tmp" not in problem["detail"]


def test_an_anchor_of_another_size_or_for_a_classical_measure_is_refused(
    client: httpx.Client,
) -> None:
    anchor = json.dumps(score(client, tiff(STACK[0])).json()["anchor"])

    other = score(client, tiff(STACK[0][:, :300]), anchor=anchor)
    assert "size" in assert_problem(other, 422, "image")["detail"] or "frames of" in other.text
    classical = score(client, tiff(STACK[0]), anchor=anchor, scorer="tenengrad")
    assert "takes no anchor" in assert_problem(classical, 422, "image")["detail"]


@pytest.mark.parametrize(
    "request_",
    [
        {"json": {"file": "a.tif"}},
        {"data": {"file": "a.tif"}},
        {"files": {"image": ("a.tif", b"II*")}},
        {"content": b"no form", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        {"content": b"", "headers": {"content-type": "multipart/form-data"}},
    ],
    ids=lambda request_: next(iter(request_)),
)
def test_a_body_without_a_file_is_refused(client: httpx.Client, request_: dict) -> None:
    assert assert_problem(client.post("/score", **request_), 422, "invalid-request")["errors"]


def test_a_request_that_is_too_large_is_refused(client: httpx.Client) -> None:
    answer = score(client, bytes(MAX_UPLOAD_BYTES + 1))

    problem = assert_problem(answer, 413, "upload-too-large")
    assert str(MAX_UPLOAD_BYTES) in problem["detail"]


def test_a_request_that_hides_how_large_it_is_is_refused_too(client: httpx.Client) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'

    def chunks() -> Iterator[bytes]:
        yield head
        for _ in range(2 * MAX_UPLOAD_BYTES >> 16):
            yield bytes(1 << 16)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/score", content=chunks(), headers=headers)

    assert_problem(answer, 413, "upload-too-large")


def test_a_header_that_says_too_much_is_answered_before_the_body_comes(
    client: httpx.Client,
) -> None:
    host, port = client.base_url.host, client.base_url.port
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(
            f"POST /score HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {1 << 40}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode()
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def bomb(width: int, height: int, packed: bytes) -> bytes:
    """A TIFF of one Deflate strip that may unpack to more than it says."""
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 8),
        (262, 3, 1),
        (273, 4, 200),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, len(packed)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + packed


def test_a_strip_that_unpacks_to_more_than_its_place_is_refused_without_unpacking_it() -> None:
    unpacker = zlib.compressobj(9)
    packed = b"".join(unpacker.compress(bytes(1 << 20)) for _ in range(200)) + unpacker.flush()
    assert len(packed) < 1 << 20
    content = io.BytesIO(bomb(64, 64, packed))

    tracemalloc.start()
    with pytest.raises(ImageError, match="unpacks to more than 4096"):
        read_frames(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 16 << 20


def test_a_strip_that_keeps_its_word_is_read() -> None:
    image = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    stack = read_frames(io.BytesIO(bomb(64, 64, zlib.compress(image.tobytes()))))
    np.testing.assert_array_equal(stack.planes, image[None])


@pytest.mark.parametrize(
    "content",
    [
        tiff(STACK[:, :64, :64]),
        tiff(STACK[:, :64, :64], compression="zlib", ome=True, metadata={"axes": "ZYX"}),
        png(STACK[0, :64, :64]),
    ],
    ids=["TIFF", "OME-TIFF", "PNG"],
)
def test_whatever_is_damaged_is_read_or_refused_but_never_stumbled_over(content: bytes) -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = np.frombuffer(content, np.uint8).copy()
        # The first kilobytes hold what describes the image.
        damaged[rng.integers(4, min(len(damaged), 2000), 4)] = rng.integers(0, 256, 4)
        try:
            assert read_frames(io.BytesIO(damaged.tobytes())).planes.ndim == 3
        except ImageError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("width", [1_000_000, 60_000])
def test_a_small_file_that_claims_a_huge_plane_is_refused(client: httpx.Client, width: int) -> None:
    problem = assert_problem(score(client, bomb(width, width, b"x")), 422, "image")
    assert f"{width} x {width} px" in problem["detail"]
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, width)
    assert_problem(score(client, header + bytes(9)), 422, "image")


def test_a_tiff_whose_pages_form_a_loop_is_refused(client: httpx.Client) -> None:
    content = bytearray(bomb(64, 64, zlib.compress(bytes(4096))))
    struct.pack_into("<I", content, 8 + 2 + 9 * 12, 8)

    assert "loop" in assert_problem(score(client, bytes(content)), 422, "image")["detail"]


def test_an_ome_tiff_may_not_name_other_files_of_this_machine(
    client: httpx.Client, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.ome.tif"
    tifffile.imwrite(secret, STACK, metadata={"axes": "ZYX"})
    own, other = (f"urn:uuid:00000000-0000-0000-0000-00000000000{i}" for i in (1, 2))
    xml = (
        '<?xml version="1.0"?>'
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{own}">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
        f'SizeX="{SIDE}" SizeY="{SIDE}" SizeZ="3" SizeC="1" SizeT="1">'
        '<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="3">'
        f'<UUID FileName="{secret}">{other}</UUID></TiffData></Pixels></Image></OME>'
    )
    content = tiff(STACK[0], description=xml.encode(), metadata=None)

    assert "one file of several" in assert_problem(score(client, content), 422, "image")["detail"]
    # One that names itself only, as Micro-Manager writes them, is welcome.
    alone = tiff(STACK, description=xml.replace(other, own).encode(), metadata=None)
    assert len(said(score(client, alone))) == 3


def test_wants_the_token_before_it_reads_anything(tmp_path: Path) -> None:
    with serving(demo_rig(tmp_path), token="secret", max_upload_bytes=1000) as client:
        assert_problem(score(client, bytes(5000)), 401, "unauthorized")
        client.headers["authorization"] = "Bearer secret"
        assert_problem(score(client, bytes(5000)), 413, "upload-too-large")


def test_scores_during_a_run_and_the_service_stays_awake(
    client: httpx.Client, learned: ReIQAScorer
) -> None:
    run_id = begin_long_run(client)
    many = np.concatenate([STACK] * 6)
    expected = [asdict(learned.score(plane)) for plane in STACK] * 6
    answers: list[httpx.Response] = []
    with httpx.Client(base_url=client.base_url, timeout=60) as other:
        threads = [
            threading.Thread(target=lambda: answers.append(score(other, tiff(many))))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        took_s = []
        while any(thread.is_alive() for thread in threads):
            began_s = time.monotonic()
            assert client.get("/stage").status_code == 200
            took_s.append(time.monotonic() - began_s)
            time.sleep(0.01)

    assert client.get(f"/runs/{run_id}").json()["status"] == "running"
    assert statistics.median(took_s) < 0.1
    assert max(took_s) < 1.5
    for answer in answers:
        assert [asdict(entry) for entry in said(answer)] == expected
    assert len(answers) == 2
    client.delete(f"/runs/{run_id}")
    assert when_over(client, run_id)["scorer"] == "reiqa-compact"


def test_one_scorer_gives_the_same_scores_to_two_threads_at_once(learned: ReIQAScorer) -> None:
    expected = [learned.score(plane) for plane in STACK]
    found: list[list[FrameScore]] = []

    def work() -> None:
        for _ in range(4):
            found.append([learned.score(plane) for plane in STACK])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [expected] * 12


def test_the_description_offers_a_file_and_every_field(client: httpx.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/score"]["post"]
    schema = operation["requestBody"]["content"]["multipart/form-data"]["schema"]

    assert schema["required"] == ["file"]
    assert set(schema["properties"]) == {
        *("file", "scorer", "head", "anchor", "bit_depth", "sampling"),
        *("width", "height", "dtype"),
    }
