"""What the documents say is so."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from autofocus.cli import app
from autofocus.client import Client
from autofocus.config import load_rig

sys.path.insert(0, str(Path(__file__).parent / "service"))
from demo_service import demo_rig, serving

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALL_AND_RUN = "python -m pip install . && autofocus serve"
INSTALL_AND_TEST = 'python -m pip install -e ".[test]" && python -m pytest'


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []


def test_paths_named_in_the_architecture_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:autofocus|devices|models|configs|\.ci)/[\w/.]*)`", text)
    assert len(named) > 15
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_module_of_the_joining_layer_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    modules = {path.stem for path in (ROOT / "autofocus").glob("*.py")}
    own = modules - {"__init__", "__main__", "client", "errors", "terminal"}
    assert sorted(name for name in own if f"{name}.py" not in text) == []


def test_the_readmes_commands_exist_and_have_these_options() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    lines = re.findall(r"^autofocus (\w+)(.*)$", README, flags=re.MULTILINE)
    assert {name for name, _ in lines} >= {"serve", "focus", "plan"}
    for name, rest in lines:
        options = {o for parameter in commands[name].params for o in parameter.opts}
        assert set(re.findall(r"--[\w-]+", rest)) <= options


def test_the_two_commands_are_the_same_everywhere() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    compose = (ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8")
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

    assert INSTALL_AND_RUN in README
    assert INSTALL_AND_TEST in README
    assert INSTALL_AND_TEST in contributing
    assert INSTALL_AND_TEST in compose
    assert INSTALL_AND_TEST.partition(" && ")[2] in ci
    assert "python -m pip install ." in dockerfile
    assert 'ENTRYPOINT ["autofocus"]' in dockerfile
    assert 'CMD ["serve"' in dockerfile


def test_the_readmes_rig_file_loads(tmp_path: Path) -> None:
    (rig_file,) = blocks(README, "toml")
    (tmp_path / "my_microscope.cfg").touch()
    (tmp_path / "my_microscope.toml").write_text(rig_file, encoding="utf-8")

    rig = load_rig(tmp_path / "my_microscope.toml")

    assert rig.microscope.towards_specimen == "+"
    assert rig.optics_for(None).na == 0.75


def test_the_readmes_program_focuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = blocks(README, "python")
    with serving(demo_rig(tmp_path)) as http:
        url = str(http.base_url).rstrip("/")
        assert "http://127.0.0.1:8000" in program
        with Client(url) as client:
            client.move_to(12.0)
        exec(program.replace("http://127.0.0.1:8000", url), {})
    assert capsys.readouterr().out.startswith("True ")


def test_the_decision_on_the_upper_bound_is_the_one_in_force() -> None:
    (page,) = (ROOT / "docs" / "decisions").glob("0003-*.md")
    bound = re.search(r"`(>=[\d.]+,<[\d.]+)`", page.read_text(encoding="utf-8"))
    assert bound
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"pymmcore-plus{bound[1]}"' in pyproject
    bounded = re.findall(r'^    "([\w-]+)[^"]*<[\d.]+"', pyproject, flags=re.MULTILINE)
    assert bounded == ["pymmcore-plus"]


def test_only_one_module_imports_the_experimental_core() -> None:
    importing = [
        path.relative_to(ROOT).as_posix()
        for package in ("autofocus", "devices", "models")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"^\s*(?:from|import).*UniMMCore", path.read_text("utf-8"), re.MULTILINE)
    ]
    assert importing == ["devices/micromanager.py"]


def test_no_file_is_a_symbolic_link() -> None:
    tracked = [p for p in ROOT.rglob("*") if not {".git", ".ci", ".venv"} & set(p.parts)]
    assert [str(path) for path in tracked if path.is_symlink()] == []
