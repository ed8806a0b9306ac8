"""The recipe library, behind `scoredistill recipes` and `--config NAME`."""

import sys
from pathlib import Path

import pytest

from scoredistill import __main__, recipe_library
from scoredistill.recipe_library import RecipeError
from scoredistill.version import __version__

FILES = {
    "quickstart.yaml": "# Four particles in a minute\n# More about it\nseed: 1\n",
    "points/vsd.yaml": "---\n\n#  VSD on points \nloss: ../losses/sds.yaml  # or ../losses/missing.yaml\n",
    "points/sds.yaml": "loss: ../losses/sds.yaml\n# too late\nagain: ../losses/sds.yaml",
    "losses/sds.yaml": "# SDS\nclass_path: scoredistill.losses.SDS\nother: not_there.yaml\n",
    "points/prompts.txt": "a red mug\n",
}


@pytest.fixture
def library(tmp_path, monkeypatch):
    """The recipes of a package in a checkout, and an empty working folder."""
    folder = tmp_path / "checkout" / "recipes"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder.parent / "pyproject.toml").touch()
    (folder.parent / "scoredistill").mkdir()
    monkeypatch.setattr(recipe_library, "__file__", str(folder.parent / "scoredistill" / "recipe_library.py"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_root_of_a_checkout(library):
    assert recipe_library.root() == library


def test_root_of_an_installed_package_comes_first(library):
    installed = library.parent / "scoredistill" / "recipes"
    installed.mkdir()
    assert recipe_library.root() == installed


def test_recipes_next_to_an_installed_package_are_ignored(library):
    (library.parent / "pyproject.toml").unlink()
    with pytest.raises(RecipeError, match="has no recipes"):
        recipe_library.root()


def test_listing_is_ordered_and_described(library):
    listed = [(recipe.name, recipe.description) for recipe in recipe_library.recipes()]
    assert listed == [
        ("quickstart.yaml", "Four particles in a minute"),
        ("losses/sds.yaml", "SDS"),
        ("points/sds.yaml", ""),
        ("points/vsd.yaml", "VSD on points"),
    ]


@pytest.mark.parametrize("name", ["points/vsd", "points/vsd.yaml", "recipes/points/vsd", "./recipes/points/vsd.yaml"])
def test_find_takes_every_spelling(library, name):
    assert recipe_library.find(name) == library / "points" / "vsd.yaml"


def test_a_users_file_takes_precedence_over_a_shipped_recipe(library):
    Path("quickstart.yaml").write_text("seed: 2\n")
    assert recipe_library.find("quickstart.yaml") == Path("quickstart.yaml")
    assert recipe_library.find("quickstart") == library / "quickstart.yaml"
    assert recipe_library.shipped("quickstart.yaml").path == library / "quickstart.yaml"


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("quickstrat.yaml", "Did you mean 'quickstart'?"),
        ("point/vsd", "Did you mean 'points/vsd'?"),
        ("sds", "Did you mean 'losses/sds' or 'points/sds'?"),
        ("xyzzy", "`scoredistill recipes` lists them."),
        ("../pyproject", "`scoredistill recipes` lists them."),
    ],
)
@pytest.mark.parametrize("look_up", [recipe_library.find, recipe_library.shipped])
def test_unknown_name_suggests(library, look_up, name, suggestion):
    with pytest.raises(RecipeError) as caught:
        look_up(name)
    assert repr(name) in str(caught.value)
    assert str(caught.value).endswith(suggestion)


def test_references_lead_to_files_and_skip_comments(library):
    assert recipe_library.references(library / "points" / "vsd.yaml") == ["../losses/sds.yaml"]
    assert recipe_library.references(library / "points" / "sds.yaml") == ["../losses/sds.yaml"]
    assert recipe_library.references(library / "losses" / "sds.yaml") == []


@pytest.mark.parametrize(
    ("destination", "written"),
    [(".", "vsd.yaml"), ("mine.yaml", "mine.yaml"), ("new/folder", "new/folder/vsd.yaml"), ("a/b.yml", "a/b.yml")],
)
def test_copy_to_a_file_or_a_folder(library, destination, written):
    assert recipe_library.copy("points/vsd", Path(destination)) == Path(written)
    assert tree(Path()) == {written: FILES["points/vsd.yaml"]}


@pytest.mark.parametrize("destination", [".", "quickstart.yaml"])
def test_copy_never_overwrites(library, destination):
    Path("quickstart.yaml").write_text("mine\n")
    with pytest.raises(RecipeError, match=r"^quickstart\.yaml already exists: .*remove it"):
        recipe_library.copy("quickstart", Path(destination))
    assert tree(Path()) == {"quickstart.yaml": "mine\n"}


def test_copy_all_keeps_the_folders(library):
    written = recipe_library.copy_all()
    assert tree(Path("recipes")) == FILES
    assert len(written) == len(FILES)


def test_copy_all_is_atomic(library):
    mine = Path("recipes/points/vsd.yaml")
    mine.parent.mkdir(parents=True)
    mine.write_text("mine\n")
    with pytest.raises(RecipeError, match="already exists"):
        recipe_library.copy_all()
    assert tree(Path()) == {"recipes/points/vsd.yaml": "mine\n"}


def test_copy_into_a_file_is_one_message(library):
    Path("file").touch()
    with pytest.raises(RecipeError, match=r"cannot write .*file"):
        recipe_library.copy("quickstart", Path("file/folder"))


def run(capsys, *words):
    code = __main__.main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("words", [("recipes",), ("recipes", "list")])
def test_command_lists(library, capsys, words):
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "quickstart.yaml  Four particles in a minute"
    assert len(out.splitlines()) == 4


def test_command_shows(library, capsys):
    assert run(capsys, "recipes", "show", "points/sds") == (0, FILES["points/sds.yaml"] + "\n", "")


def test_command_copies_and_names_what_is_missing(library, capsys):
    code, out, err = run(capsys, "recipes", "copy", "points/vsd", "mine")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"copied to {Path('mine/vsd.yaml')}"
    assert "../losses/sds.yaml" in out
    assert "copy --all" in out


@pytest.mark.parametrize("words", [("--all", "mine"), ("mine", "--all")])
def test_command_copies_all(library, capsys, words):
    assert run(capsys, "recipes", "copy", *words) == (0, f"copied {len(FILES)} files to mine\n", "")
    assert tree(Path("mine")) == FILES


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("copy", "--help"), ("show", "-h")])
def test_command_help_says_that_folders_are_kept(capsys, words):
    code, out, err = run(capsys, "recipes", *words)
    assert (code, err) == (0, "")
    assert "copies the folders" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("recipes", "shwo"), "Did you mean 'show'?"),
        (("recipes", "show"), "NAME"),
        (("recipes", "show", "quickstrat"), "Did you mean 'quickstart'?"),
        (("recipes", "copy"), "--all"),
        (("recipes", "copy", "quickstart", "a", "b"), "'b'"),
        (("recipes", "list", "--long"), "--long"),
        (("fti",), "Did you mean 'fit'?"),
        (("xyzzy",), "Choose from fit,"),
        (("--config", "x.yaml"), "`scoredistill fit --config`"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(library, capsys, words, message):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("scoredistill")


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
def test_help(capsys, words):
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert out.startswith("usage: scoredistill COMMAND")
    assert all(f"\n  {command} " in out for command in (*__main__.COMMANDS, "recipes"))


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"scoredistill {__version__}\n", "")


@pytest.mark.parametrize("command", __main__.COMMANDS)
def test_other_commands_are_delegated(command, monkeypatch):
    received = []

    class Cli:
        @staticmethod
        def main(argv):
            received.append(argv)
            return 7

    monkeypatch.setitem(sys.modules, "scoredistill.cli", Cli)
    monkeypatch.setattr("scoredistill.cli", Cli, raising=False)
    assert __main__.main([command, "--config", "x"]) == 7
    assert received == [[command, "--config", "x"]]


def test_interrupt_has_no_stack_trace(monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe_library, "main", interrupted)
    assert __main__.main(["recipes"]) == 130


def test_the_shipped_recipes_are_described():
    undescribed = [recipe.name for recipe in recipe_library.recipes() if not recipe.description]
    assert not undescribed, f"recipes without a comment on their first line: {undescribed}"
