"""Rules for every commit: no names or paths of machines in tracked files, and the format of the change log."""

import os
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# In pieces, so that this file passes its own test.
REGISTRIES = ["py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com", "download.py" + "torch.org"]
INDEX_VARIABLES = ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL"]
SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Numerics"}


def git(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if done.returncode not in (0, 1):
        pytest.skip("not a git checkout")
    return done


@cache
def tracked() -> dict[str, str]:
    """The text of the tracked files by path, without binary files."""
    names = git("ls-files", "-z").stdout.split("\0")
    paths = {name: ROOT / name for name in names if name}
    return {name: path.read_text("utf-8", errors="ignore") for name, path in paths.items() if path.is_file()}


def lines_with(pattern: str) -> list[str]:
    """The places where a pattern occurs, without the match, which a report must not repeat."""
    found = re.compile(pattern, re.IGNORECASE)
    places = []
    for name, text in tracked().items():
        if found.search(text):
            places += [f"{name}:{i}" for i, line in enumerate(text.splitlines(), 1) if found.search(line)]
    return places


def index_hosts() -> set[str]:
    """Hosts of the package indexes that this machine uses, from its settings and from uv's lock."""
    lock = ROOT / "uv.lock"
    settings = " ".join(os.environ.get(variable, "") for variable in INDEX_VARIABLES)
    registries = re.findall(r'registry = "([^"]+)"', lock.read_text("utf-8")) if lock.is_file() else []
    return set(re.findall(r"https?://(?:[^/@\s]*@)?([\w.-]+)", " ".join([settings, *registries])))


def index_pattern() -> str:
    hosts = sorted({*REGISTRIES, *index_hosts()} - {"localhost", "127.0.0.1"})
    return "|".join(rf"(?<![\w-]){re.escape(host)}(?![\w-])" for host in hosts)


def path_pattern() -> str:
    homes = [r"/(?:home|Users)/\w", r"[A-Z]:\\\\?Users\\"]
    # The name of a folder such as /src is too short to search for.
    roots = [rf"{re.escape(str(path))}(?![\w.-])" for path in (ROOT, ROOT.parent) if len(path.parts) > 2]
    home = Path.home()
    roots += [f"{re.escape(str(home))}/"] if len(home.parts) > 1 else []
    return rf"(?<![\w.~-])(?:{'|'.join([*homes, *roots])})"


def test_no_tracked_file_names_a_package_index():
    places = lines_with(index_pattern())
    assert not places, f"these lines name a package index: {places}"


def test_no_tracked_file_has_a_path_of_a_machine():
    places = lines_with(path_pattern())
    assert not places, f"these lines hold an absolute path of some machine: {places}"


@pytest.mark.parametrize("text", [f"https://{REGISTRIES[0]}/simple", f"see files.{REGISTRIES[1]}."])
def test_index_pattern_finds(text):
    assert re.search(index_pattern(), text)


@pytest.mark.parametrize(
    "text", ["/ho" + "me/user/x", "file:///Us" + "ers/me", "C:\\\\Us" + "ers\\me", f"{Path.home()}/x"]
)
def test_path_pattern_finds(text):
    assert re.search(path_pattern(), text)


@pytest.mark.parametrize("text", ["~/runs", "docs/home/index.md", "https://example.org/home/page", "./recipes"])
def test_path_pattern_ignores_other_text(text):
    assert not re.search(path_pattern(), text)


def test_the_lock_is_ignored():
    assert git("check-ignore", "--no-index", "uv.lock").returncode == 0, "uv.lock names an index: ignore it"
    assert "uv.lock" not in tracked()


@pytest.mark.parametrize("name", ["runs/x", "a.egg-info/x", ".mypy_cache/x", ".ruff_cache/x", ".pytest_cache/x"])
def test_files_written_by_tools_are_ignored(name):
    assert git("check-ignore", "--no-index", name).returncode == 0


def test_change_log_keeps_its_format():
    path = ROOT / "CHANGELOG.md"
    assert path.is_file(), "CHANGELOG.md is missing"
    text = path.read_text("utf-8")
    titles = re.findall(r"^(#+) +(.*?) *$", text, flags=re.MULTILINE)
    assert titles[0] == ("#", "Changelog")
    versions = [title for level, title in titles if level == "##"]
    sections = {title for level, title in titles if level == "###"}
    assert versions
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\S*\] - \d{4}-\d\d-\d\d( \[YANKED\])?", title) for title in versions[1:])
    assert sections, "a change is listed under Added, Changed, Deprecated, Removed, Fixed, Security or Numerics"
    assert sections <= SECTIONS
