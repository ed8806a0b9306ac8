"""Text is unchanged in options, recipes and studies, and when config.yaml is read again."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scoredistill import recipe_yaml
from scoredistill.cli.argv import read_words
from scoredistill.cli.key_types import Word, register_tensors
from scoredistill.cli.lightning_patches import quiet
from scoredistill.cli.recipe_parser import RecipeParser
from scoredistill.cli.run_key import _Parsed
from scoredistill.studies.axes import words_of

NASTY = ["#1 dad mug", "a red mug, 8k: best quality", "1e3", "null", "~", "no", "5", "-1", "true", "[x, y]", "{a: 1}",
         "a: b", "x #y", " x ", "'q'", '"null"', "", "-", "12:30", "2026-01-01", "0x10", "1_000", "a\nb", "\x85",
         "sds.yaml", "points/sds.yaml", "os.system", "é😀"]  # fmt: skip


class Text:
    """All types of arguments that accept text.

    Args:
        plain: text.
        optional: text or null.
        path: of a file.
        texts: several.
        one_or_more: text or several.
        inner: more of it.
    """

    def __init__(
        self,
        plain: str = "",
        optional: str | None = None,
        path: str | Path = "",
        texts: Sequence[str] = (),
        one_or_more: str | Sequence[str] = "",
        inner: "Text | None" = None,
    ) -> None:
        self.all = [plain, optional, path, list(texts), one_or_more, None if inner is None else inner.all]


FIELDS = ("plain", "optional", "path", "one_or_more")


@pytest.fixture(scope="module")
def parser():
    with quiet():
        yield make_parser()


def make_parser():
    parser = RecipeParser(exit_on_error=False)
    parser.add_subclass_arguments(Text, "text")
    parser.add_argument("--name", type=str | None)
    parser.keep_text()
    return parser


def texts(function):
    for text in NASTY:
        function = example(text)(function)
    return settings(max_examples=15, deadline=None, database=None)(given(st.text())(function))


def spec(value):
    return {"class_path": f"{__name__}.Text", "init_args": value}


@pytest.mark.slow
@texts
def test_text_in_a_file_is_unchanged(parser, text):
    fields = dict.fromkeys(FIELDS, text) | {"texts": [text, text]}
    written = {"text": spec(fields | {"inner": spec(fields)}), "name": text}
    for dump in (yaml.safe_dump, recipe_yaml.dump):
        config = parser.parse_object(recipe_yaml.load(dump(written)))
        again = parser.parse_object(recipe_yaml.load(parser.dump(config, "yaml")))
        for each in (config, again):
            built = parser.instantiate_classes(each)
            own = [text, text, text, [text, text], text]
            assert built.text.all == [*own, [*own, None]]
            assert built.name == text


@pytest.mark.slow
@texts
def test_text_in_an_option_is_unchanged(parser, text):
    given = {name: text for name in FIELDS if not (name == "one_or_more" and text.startswith("["))}
    words = [f"--text={__name__}.Text", f"--text.inner={__name__}.Text", f"--name={text}"]
    words += [f"--text.{name}={text}" for name in given] + [f"--text.inner.{name}={text}" for name in given]
    config = parser.parse_args(words)
    again = parser.parse_object(recipe_yaml.load(parser.dump(config, "yaml")))
    wanted = {name: None if (name, text) == ("optional", "null") else text for name in given}
    for each in (config, again):
        own = each.text.init_args
        assert {name: own[name] for name in given} == wanted
        assert {name: own.inner.init_args[name] for name in given} == wanted
        assert each.name == (None if text == "null" else text)


@texts
def test_text_in_a_study_is_unchanged(parser, text):
    values = {f"text.{name}": text for name in FIELDS if not (name == "one_or_more" and text.startswith("["))}
    words = words_of(values | {"text.texts": [text]}, Path("nowhere/study.yaml"), "axes")
    own = parser.parse_args([f"--text={__name__}.Text", *words]).text.init_args
    assert all(own[key.removeprefix("text.")] == text for key in values)
    assert own.texts == [text]


def test_all_arguments_can_be_one_option(folder):
    register_tensors()
    words = ["--data", "PromptAndCameras", '--data.init_args={prompt: "null", views: 2}']
    data = _Parsed("fit", read_words(["--config", "points.yaml", *words])).config.data.init_args
    assert (data.prompt, data.views) == ("null", 2)


def test_a_list_can_be_an_option(parser):
    own = parser.parse_args([f"--text={__name__}.Text", "--text.one_or_more=[a, b]", "--text.texts=[c]"]).text.init_args
    assert (own.one_or_more, own.texts) == (["a", "b"], ["c"])


@pytest.mark.parametrize("text", ["#1 dad mug", "a red mug, 8k: best quality", "1e3", "null", "[x]", "5"])
def test_prompts_and_folders_are_restored_from_the_stored_recipe(folder, text):
    register_tensors()

    def parsed(*words):
        line = _Parsed("fit", read_words(["--config", "points.yaml", "--data", "PromptAndCameras", *words]))
        data = line.config.data.init_args
        (folder / "config.yaml").write_text(line._as_recipe(line.config))
        return data.prompt, data.negative_prompt, line.config.output

    first = parsed(f"--data.prompt={text}", f"--data.negative_prompt={text}", f"--output={text}")
    assert first == (text, None if text == "null" else text, text)
    assert parsed("--config", "config.yaml") == first


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("5", 5.0), (".5", 0.5), ("-.inf", float("-inf")), ("1.0e+22", 1e22)],
)
def test_numbers_are_read_where_a_number_is_expected(text, value):
    parser = RecipeParser(exit_on_error=False)
    parser.add_argument("--x", type=float)
    parser.keep_text()
    assert parser.parse_args([f"--x={text}"]).x == value
    assert parser.parse_object(recipe_yaml.load(f"x: {text}")).x == value
    assert Word(text) == text
