"""Every block of the README, CONTRIBUTING and docs runs unchanged, page by page, in an empty folder.

Long commands are shortened, and commands that need weights or a cluster are only parsed, by the rules below. A block
that no rule covers fails.
"""

import functools
import importlib
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from scoredistill.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
PAGES = [page for page in PAGES if not {"_build", "reference"} & set(page.parts)]
SHOWN = {"text", "mermaid", "{toctree}"}
"""Languages of blocks that cannot run."""
TRAINED_FIRST = re.compile(r"digits|gallery_sd|small/|sd15|prolificdreamer|edm|recipes/dds")
"""Recipes with a teacher that takes minutes to train, or with weights to download. They are only parsed."""
SHORT = ["--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]
SMALL = ["--model.generator.init_args.resolution", "8", "--model.generator.init_args.samples", "8"]
SMALL += ["--model.generator.init_args.encoding", "DenseGrid", "--model.generator.init_args.particles", "1"]
SMALL += ["--model.generator.init_args.encoding.resolution", "8"]
NOT_OURS = {"uv sync", "pre-commit install", "pytest"}
"""Commands that set up a clone, and the tests themselves."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """The language and text of each block."""
    return re.findall(r"^```(\S*)\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory whose files can be imported, as for a reader."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning")  # advice on data loaders
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # Lightning's own
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_runs(page: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for language, text in blocks(page):
        if language == "python":
            keep(text, here)
            exec(text, names)
        elif language == "yaml":
            check_recipe(keep(text, here), capsys)
        elif language == "sh":
            for line in text.splitlines():
                run_line(line, capsys)
        else:
            assert language in SHOWN, f"no rule for a block of {language or 'no language'}"


def keep(text: str, folder: Path) -> Path | None:
    """Write a block that begins with a file name to that file."""
    named = re.match(r"# (\w+\.(?:py|yaml))\n", text)
    if named is None:
        return None
    path = folder / named[1]
    path.write_text(text)
    return path


def check_recipe(path: Path | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Resolve each cell of a study; of any other file, check that the classes exist."""
    assert path is not None, "a block of YAML has to begin with the name of its file"
    content = yaml.safe_load(path.read_text())
    if "recipe" in content:
        ours(["ablate", path.name, "--dry_run"], capsys)
    for name in re.findall(r"class_path: ([\w.]+)", path.read_text()):
        found: object = importlib.import_module("scoredistill")
        packages = ("teachers", "networks", "critics", "losses", "generators", "studies.launchers")
        owners = [importlib.import_module(f"scoredistill.{package}") for package in packages]
        found = next((owner for owner in owners if hasattr(owner, name.split(".")[0])), None)
        assert found is not None, name
        functools.reduce(getattr, name.split("."), found)


def run_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a line of shell by the first matching rule."""
    command = (
        line.partition("#")[0]
        .strip()
        .removeprefix("pip install uv && ")
        .removeprefix("uv run ")
        .removeprefix("--group docs ")
    )
    if not command or command in NOT_OURS or command == "pip install uv":
        return
    words = shlex.split(command)
    if words[0] in ("torchrun", "srun"):
        parsed(words[words.index("scoredistill") + 1 :], capsys)
    elif words[0] == "python":
        compile((ROOT / words[1]).read_text(), words[1], "exec")
    elif words[0] == "sphinx-build":
        assert (ROOT / "docs/conf.py").is_file()
    else:
        assert words[0] == "scoredistill", f"no rule for {line}"
        RULES.get(words[1], ours)(words[1:], capsys)


def ours(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command of scoredistill unchanged."""
    code = main(words)
    assert code == 0, f"{shlex.join(words)}: {capsys.readouterr().err}"


def fit(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Train two small steps; without the teacher or the weights, only parse."""
    if "--help" in words:
        ours(words, capsys)
    elif TRAINED_FIRST.search(shlex.join(words)) or {"--start_from", "--trainer.devices"} & set(words):
        parsed(words, capsys)
    else:
        known = [] if "--trainer.callbacks" in words or "--ckpt_path" in words else ["--trainer.callbacks", "null"]
        ours([*words, *SHORT, *known, *(SMALL if "quickstart" in shlex.join(words) else [])], capsys)


def parsed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Resolve the recipe with its options without building it."""
    run = words[words.index("--ckpt_path") + 1] if "--ckpt_path" in words else None
    if run is not None and "--config" not in words:
        known_options(words, capsys)
    else:
        ours([*words, "--print_config"], capsys)


def known_options(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Check that the command has the options, if the run does not exist."""
    capsys.readouterr()
    ours([words[0], "--help"], capsys)
    help_text = capsys.readouterr().out
    for word in words[1:]:
        if word.startswith("--"):
            assert word.split("=")[0].split(".init_args")[0] in help_text, word


def of_a_run(*small: str) -> Callable[[list[str], pytest.CaptureFixture[str]], None]:
    """Run a command on a run of an earlier block, or only check its options."""

    def rule(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        if any(Path(word).is_dir() for word in words[1:]):
            ours([*words, *small], capsys)
        else:
            known_options(words, capsys)

    return rule


def view(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Find the run without serving it, which would last until Ctrl-C."""
    from scoredistill.cli.viewer.command import find_run

    if Path(words[1]).is_dir():
        assert find_run(Path(words[1])).config.is_file()
    else:
        known_options(words, capsys)


def stages(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Resolve the recipe of every stage."""
    from scoredistill.cli.run_key import Resolver
    from scoredistill.cli.stages import _read

    todo, _ = _read(words[1], None, words[2:])
    assert len({Resolver().key(stage.words) for stage in todo}) == len(todo) > 1


def ablate(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Resolve every cell, and list the commands."""
    ours([*words, *([] if "--dry_run" in words else ["--dry_run"])], capsys)


RULES: dict[str, Callable[[list[str], pytest.CaptureFixture[str]], None]] = {
    "fit": fit,
    "export": of_a_run("--resolution", "8", "--texture", "8", "--size", "16", "--frames", "2"),
    "test": of_a_run("--trainer.callbacks", "null"),
    "predict": of_a_run(),
    "report": of_a_run(),
    "view": view,
    "stages": stages,
    "ablate": ablate,
}


def test_every_command_has_a_rule_or_runs_unchanged() -> None:
    assert set(COMMANDS) <= RULES.keys() | {"validate", "recipes"}
