"""The user's own classes: errors in them are reported as such."""

import pytest
from exported import exported_classes

from scoredistill.cli.key_types import parameters

FILES = {
    "needs.py": "import a_library_that_nobody_has\n",
    "broken.py": "class Mine:\n    def f(self:\n",
    "raises.py": "\n\nraise RuntimeError('no weights here')\n",
    "leaves.py": "import sys\nsys.exit(3)\n",
    "inner/__init__.py": "from inner.part import Mine\n",
    "inner/part.py": "import torch.nothing_of_the_sort\n",
    "mine.py": '''\
from scoredistill.losses import SDS, ScoreDistillation

answer = 42


class Pull(SDS):
    """SDS with a factor.

    Args:
        c: the factor.
    """

    def __init__(self, c: float = 1.0) -> None:
        super().__init__()


class Unfinished(ScoreDistillation):
    """B is missing."""


class Untyped(SDS):
    """c has no type."""

    def __init__(self, c) -> None:
        super().__init__()


class Half(SDS):
    """c has a default and no type."""

    def __init__(self, c=1.0) -> None:
        super().__init__()


def pull() -> SDS:
    return SDS()


class Stranger:
    """Not a loss."""
''',
}


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("nowhere.Xyzzy", "there is no module 'nowhere'. It must be in the working directory or installed."),
        ("needs.Mine", "needs cannot be imported: it needs a_library_that_nobody_has, which is not installed"),
        ("inner.Mine", "inner cannot be imported: it needs torch.nothing_of_the_sort, which is not installed"),
        ("broken.Mine", "broken cannot be imported: SyntaxError: "),
        ("broken.Mine", "(broken.py, line 2)"),
        ("raises.Mine", "raises cannot be imported: RuntimeError: no weights here (raises.py, line 3)"),
        ("leaves.Mine", "leaves cannot be imported: SystemExit: 3 (leaves.py, line 2)"),
        ("mine.Pul", "mine has no class 'Pul'. Did you mean 'Pull'?"),
        ("mine.pull", "mine.pull is a function and not a class"),
        ("mine.answer", "mine.answer is an int and not a class"),
        ("mine", "there is no Objective called 'mine'"),
        ("mine.Stranger", "mine.Stranger is not an Objective"),
        ("mine.Unfinished", "mine.Unfinished lacks baseline, which every ScoreDistillation defines"),
        ("mine.Untyped", "Untyped has no type for its argument 'c': annotate it, as in `c: float`"),
        ("{class_path: mine.Half, init_args: {c: 2}}", "Half has no type for its argument 'c'"),
        ("{class_path: mine.Pull, init_args: {d: 2}}", "Pull has no option 'd'. There are c."),
        ("{class_path: mine.Pull, init_args: {c: x}}", "model.loss.c: expected float, got x"),
        ("mine..Pull", "'mine..Pull' is not the dotted path of a class"),
    ],
)
def test_errors_of_user_classes_are_reported(cli, folder, loss, said):
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    result = cli("fit", "--config", "points.yaml", "--model.loss", loss)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert result.err.startswith("scoredistill fit: model.loss")
    assert said in result.err
    assert not (folder / "runs").exists()


def test_an_argument_without_a_type_keeps_its_default(cli, folder):
    text = FILES["mine.py"].replace("c=1.0) -> None:", "c=1.0) -> None:\n        assert c == 1.0")
    (folder / "own.py").write_text(text)
    assert cli("fit", "--config", "points.yaml", "--model.loss", "own.Half").code == 0


def test_all_arguments_of_package_classes_are_typed():
    # torch annotates what SplitParticles passes to DistributedDataParallel. Errors are not configured.
    ours = [kind for name, kind in exported_classes().items() if name != "SplitParticles"]
    ours = [kind for kind in ours if not issubclass(kind, Exception)]
    assert len(ours) > 150
    bare = [f"{kind.__name__}.{name}" for kind in ours for name, each in parameters(kind).items() if not each.typed]
    assert not bare
