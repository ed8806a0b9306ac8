"""The YAML of recipes."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from scoredistill import recipe_library, recipe_yaml
from scoredistill.recipe_library import RecipeError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None, database=None)
@given(PLAIN)
def test_written_yaml_is_read_back_by_any_parser(value):
    for text in (recipe_yaml.dump(value), recipe_yaml.dump_line(value)):
        assert recipe_yaml.load(text) == value
        assert yaml.safe_load(text) == value
    assert recipe_yaml.load(yaml.safe_dump(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        ("", None),
        ("~", "~"),
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("1e3", "1e3"),
        ("1.0e+3", 1000.0),
        ("007", "007"),
        ("0x10", 16),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("{a: &x {b: 1}, c: {<<: *x, d: 2}}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
    ],
)
def test_scalars(text, value):
    found = recipe_yaml.load(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3", 3, "the key 'a' is used twice, in lines 1 and 3"),
        ("m:\n  loss: SDS\n  x: {y: 1,\n    y: 2}", 4, "the key 'y' is used twice, in lines 3 and 4"),
        ("a: &x [*x]", 1, "an alias contains itself"),
        ("a: &x {b: {c: *x}}", 1, "an alias contains itself"),
        ("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
         + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(9)), 5, "more than 100,000"),
        ("[" * 100_000, 1, "nesting"),
        ("a: !!python/object/apply:os.system [ls]", 1, "could not determine a constructor"),
        ("a: !!set {b, c}", 1, "could not determine a constructor"),
    ],
)  # fmt: skip
def test_unsupported_yaml_is_refused_with_its_line(tmp_path, text, line, said):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        recipe_library.read(path)
    assert f"recipe.yaml, line {line} " in str(caught.value)
    assert said in str(caught.value)


def test_an_endless_number_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"a: {'1' * 10_000}")
    with pytest.raises(RecipeError, match=r"recipe\.yaml is not YAML: .*digits"):
        recipe_library.read(path)


def test_a_byte_order_mark_is_removed_from_the_first_key(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes("\ufeffmodel: 1\n".encode())
    assert recipe_library.read(path) == {"model": 1}
