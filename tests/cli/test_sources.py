"""The files on which a run depends besides its recipe: the user's code, and files that the recipe names."""

import shutil

import pytest

from scoredistill.cli.attempts import changed_files, sources_of

FILES = {
    "my_loss.py": "import torch\nfrom helper import half\nfrom scoredistill.losses import SDS\n\nMine = SDS\n",
    "helper.py": "def half(x):\n    import lazily.deep as deep\n\n    return deep.x\n",
    "lazily/__init__.py": "",
    "lazily/deep.py": "from . import sibling\nfrom ..helper import nothing\n",
    "lazily/sibling.py": "x = 1\n",
    "stranger.py": "from my_loss import Mine\n",
    "prompts.txt": "a mug\n",
    "pictures/init.png": "not looked into",
}
RECIPE = {
    "model": {"loss": {"class_path": "my_loss.Mine", "init_args": {"weight": None}}, "teacher": "torch.nn.Linear"},
    "data": {"init_args": {"prompts": "prompts.txt", "init": "pictures/init.png", "folder": "pictures"}},
    "callbacks": [{"class_path": "scoredistill.training.callbacks.Cost"}, {"class_path": "json.JSONEncoder"}],
    "free": ["a.mug", "x" * 5000, "null\0character", "no.such.module"],
}
KNOWN = {"my_loss.py", "helper.py", "lazily/__init__.py", "lazily/deep.py", "lazily/sibling.py", "prompts.txt"}
KNOWN |= {"pictures/init.png"}


@pytest.fixture
def files(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def names(known: str) -> set[str]:
    return {word.partition("=")[0] for word in known.split()}


def test_exactly_the_files_that_a_recipe_depends_on_are_found(files):
    assert names(sources_of(RECIPE)) == KNOWN
    assert sources_of({"model": {"loss": "scoredistill.losses.SDS"}}) == ""


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_changed_file_is_named(files, name):
    before = f"0123 {sources_of(RECIPE)} seed 1"
    (files / name).write_text(FILES[name] + "# changed\n")
    after = f"0123 {sources_of(RECIPE)} seed 1"
    assert changed_files(before, after) == ([name] if name in KNOWN else [])
    assert changed_files(before, after.replace("0123", "4567")) == []


def test_removed_files_count_as_changed_and_unparsable_code_is_hashed(files):
    before = sources_of(RECIPE)
    (files / "prompts.txt").unlink()
    (files / "helper.py").write_text("def half(:\n")
    assert changed_files(before, sources_of(RECIPE)) == [
        "helper.py",
        "lazily/__init__.py",
        "lazily/deep.py",
        "lazily/sibling.py",
        "prompts.txt",
    ]


def test_sources_do_not_depend_on_the_working_directory(files, tmp_path_factory, monkeypatch):
    before = sources_of(RECIPE)
    moved = tmp_path_factory.mktemp("elsewhere") / "moved here"
    shutil.move(files, moved)
    monkeypatch.chdir(moved)
    monkeypatch.syspath_prepend(moved)
    assert sources_of(RECIPE) == before
