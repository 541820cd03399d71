"""Heads for one objective or channel: the rig file names them, the microscope chooses."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pymmcore_plus import CMMCorePlus

from autofocus.conductor import Conductor
from autofocus.config import HeadRule, Rig, builtin_configs, load_rig
from autofocus.errors import ConfigError
from autofocus.planning import FocusRequest
from autofocus.runs import RunRecord, RunStore
from autofocus.scorers import ActiveHead, scorers_of
from devices import Microscope

sys.path.insert(0, str(Path(__file__).parent / "service"))
from compact_models import install
from demo_service import serving

X10, X20 = "Nikon 10X S Fluor", "Nikon 20X Plan Fluor ELWD"
HEADS = f"""
[[heads]]
channel = "FITC"
head = "fitc"

[[heads]]
objective = "{X20}"
channel = "FITC"
head = "twenty-fitc"
"""
RIG = """
models_dir = "models"
runs_dir = "runs"
stacks_dir = "stacks"
calibrations_dir = "calibrations"

[microscope]
config = '{config}'
z_min_um = -250.0
z_max_um = 250.0
simulated = true

[[objectives]]
label = "{x10}"
na = 0.5
pixel_size_um = 0.65

[[objectives]]
label = "{x20}"
na = 0.75
pixel_size_um = 0.325
head = "twenty"
{heads}
"""


def write_rig(folder: Path, heads: str = HEADS) -> Rig:
    path = folder / "rig.toml"
    config = builtin_configs() / "demo.cfg"
    path.write_text(RIG.format(config=config, x10=X10, x20=X20, heads=heads), encoding="utf-8")
    return load_rig(path)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """Of the demo, with five heads that differ in name."""
    folder = tmp_path_factory.mktemp("conditions")
    rig = write_rig(folder)
    install(rig.models_dir)
    for name in ("fitc", "twenty", "twenty-fitc", "mine"):
        head = rig.models_dir / "compact" / "heads" / name
        shutil.copytree(rig.models_dir / "compact" / "head", head)
        manifest = json.loads((head / "manifest.json").read_text(encoding="utf-8"))
        (head / "manifest.json").write_text(json.dumps({**manifest, "name": name}), "utf-8")
    return rig


@pytest.fixture(scope="module")
def core(rig: Rig) -> Iterator[CMMCorePlus]:
    core = CMMCorePlus()
    core.loadSystemConfiguration(str(rig.microscope.config))
    yield core
    core.unloadAllDevices()


@pytest.fixture(scope="module")
def conductor(rig: Rig, core: CMMCorePlus) -> Iterator[Conductor]:
    microscope = Microscope(core, rig.microscope)
    conductor = Conductor(rig, microscope, scorers_of(rig), RunStore(rig.runs_dir))
    yield conductor
    conductor.close()


def run(conductor: Conductor, **request) -> RunRecord:
    wanted = FocusRequest(z_min_um=-40.0, z_max_um=40.0, max_exposures=2, **request)
    return conductor.start(wanted).done.result(timeout=60)


@pytest.mark.parametrize(
    ("objective", "channel", "request_", "head", "why"),
    [
        (X20, "DAPI", {}, "twenty", f"of the rig file, for objective {X20}"),
        (X20, "FITC", {}, "twenty-fitc", f"for objective {X20} and channel FITC"),
        (X10, "FITC", {}, "fitc", "of the rig file, for channel FITC"),
        (X10, "DAPI", {}, "test", f"the rig file has none for objective {X10}, channel DAPI"),
        (X20, "DAPI", {"channel": "FITC"}, "twenty-fitc", f"objective {X20} and channel FITC"),
        (X20, "FITC", {"scorer": "reiqa-compact"}, "twenty-fitc", "of the rig file"),
        (X20, "FITC", {"head": "mine"}, "mine", f"as asked for (objective {X20}, channel FITC)"),
    ],
)
def test_the_most_specific_head_scores_and_the_result_says_why(
    conductor: Conductor, core: CMMCorePlus, objective, channel, request_, head, why
) -> None:
    """The turret is turned and the channel changed by hand: nobody tells the service."""
    core.setStateLabel("Objective", objective)
    core.setConfig("Channel", channel)
    record = run(conductor, **request_)
    assert record.result.head.split("@")[0] == head
    assert why in record.result.notes[0]


def test_a_classical_measure_has_no_head_and_no_note_of_one(conductor: Conductor) -> None:
    result = run(conductor, scorer="tenengrad").result
    assert result.head is None
    assert not any("head" in note for note in result.notes)


def test_where_no_head_of_the_rig_file_fits_the_one_in_use_is_taken(
    rig: Rig, conductor: Conductor, core: CMMCorePlus
) -> None:
    core.setStateLabel("Objective", X10)
    core.setConfig("Channel", "DAPI")
    ActiveHead(rig.models_dir).put("mine")
    try:
        assert run(conductor).result.head.startswith("mine@")
    finally:
        ActiveHead(rig.models_dir).put("default")


def test_over_http_the_answers_say_which_head_is_next_and_why(rig: Rig) -> None:
    with serving(rig) as client:
        answer = client.put("/heads/active", json={"name": "mine"}).json()
        ran = client.post("/autofocus", json={"max_exposures": 2, "range_um": 40.0}).json()
        client.put("/heads/active", json={"name": "default"})
    assert answer["used_by_next_run"] is False
    assert f"head twenty of the rig file, for objective {X20}" in answer["note"]
    assert ran["head"].startswith("twenty@")
    assert ran["notes"][0] == f"head twenty of the rig file, for objective {X20}"


def test_a_head_that_is_not_there_is_an_error_and_not_the_general_one(rig: Rig) -> None:
    objectives = tuple(replace(each, head="gone") for each in rig.objectives)
    with serving(replace(rig, objectives=objectives)) as client:
        answer = client.post("/autofocus", json={})
    assert answer.status_code == 422
    assert "no head 'gone'" in answer.json()["detail"]


def test_without_heads_in_the_rig_file_there_is_nothing_to_explain(rig: Rig) -> None:
    plain = replace(
        rig, heads=(), objectives=tuple(replace(each, head=None) for each in rig.objectives)
    )
    with serving(plain) as client:
        ran = client.post("/autofocus", json={"max_exposures": 2, "range_um": 40.0}).json()
    assert ran["head"].startswith("test@")
    assert not any("head" in note for note in ran["notes"])


def test_the_example_of_the_documentation_does_what_the_text_says(tmp_path: Path) -> None:
    page = Path(__file__).parents[1] / "docs" / "own_head.md"
    (example,) = re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = RIG.format(config=builtin_configs() / "demo.cfg", x10=X10, x20=X20, heads="")
    path = tmp_path / "rig.toml"
    path.write_text(text[: text.index("[[objectives]]")] + example, encoding="utf-8")
    rule = load_rig(path).head_rule
    assert rule(X20, "DAPI") == HeadRule("nuclei-20x", X20)
    assert rule(X20, "FITC") == HeadRule("fitc-20x", X20, "FITC")
    assert rule(X10, "FITC") == HeadRule("fitc", None, "FITC")
    assert rule(X10, "DAPI") is None
    assert rule(None, None) is None


@pytest.mark.parametrize(
    ("heads", "says"),
    [
        ('[[heads]]\nhead = "x"', "needs an `objective`, a `channel` or both"),
        (f'[[heads]]\nhead = "x"\nobjective = "{X20}"', f"two heads for objective '{X20}'"),
        (2 * '[[heads]]\nhead = "x"\nchannel = "FITC"\n', "channel 'FITC'"),
        ('[[heads]]\nhead = "x"\nobjective = "Nikon 20x"', "'Nikon 20x' is none of"),
        ('[[heads]]\nchannel = "FITC"', "heads.0.head"),
    ],
)
def test_heads_that_say_nothing_or_contradict_are_refused(
    tmp_path: Path, heads: str, says: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        write_rig(tmp_path, heads)
    assert says in str(refused.value)
