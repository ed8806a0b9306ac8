"""Shipped recipes with one random error each: every message names the error."""

import copy
import os
import random
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from scoredistill import recipe_library, recipe_yaml

CASES = int(os.environ.get("SCOREDISTILL_MUTATIONS", "200"))
"""Number of mutants; the environment variable sets another."""
LIMIT = 60
"""Seconds after which a case counts as hanging."""
PARSER_WORDS = re.compile(r"Traceback|Namespace|NestedArg|<class|jsonargparse|Parser key|subtypes|Word\(|Error:")
FREE = {"rates", "negatives", "network", "unet", "text_encoder"}
"""Settings with arbitrary keys."""
RECIPES = [
    each.name
    for each in recipe_library.recipes()
    if not each.name.startswith(("studies/", "losses/", "small/")) and each.path.stem != "stages"
]


@dataclass
class Mutant:
    """A recipe with one error.

    Args:
        text: of the file.
        named: what the message has to name.
    """

    text: str
    named: str


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All paths to values, except below settings of any type."""
    if path:
        yield path
    if isinstance(value, dict) and not (path and path[-1] in FREE):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for i, each in enumerate(value):
            yield from places(each, (*path, i))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


def chosen(recipe: dict[str, Any], rng: random.Random, fits: Callable[[Any, Any], bool]) -> tuple[Any, ...] | None:
    """A random place whose key and value satisfy a condition."""
    found = [path for path in places(recipe) if fits(path[-1], at(recipe, path))]
    return rng.choice(found) if found else None


def misspelt(recipe: dict[str, Any], rng: random.Random) -> Mutant | None:
    path = chosen(recipe, rng, lambda key, _: isinstance(key, str))
    if path is None:
        return None
    above, key = at(recipe, path[:-1]), str(path[-1])
    i = rng.randrange(len(key))
    wrong = rng.choice([key[:i] + key[i + 1 :], key[:i] + key[i] * 2 + key[i + 1 :], key + "s", key.upper()])
    if wrong in above or not wrong:
        return None
    above[wrong] = above.pop(key)
    return Mutant(recipe_yaml.dump(recipe), wrong)


def is_number(_: Any, value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_class(_: Any, value: Any) -> bool:
    return isinstance(value, dict) and "class_path" in value


def replaced(
    fits: Callable[[Any, Any], bool], *others: Any
) -> Callable[[dict[str, Any], random.Random], Mutant | None]:
    def mutate(recipe: dict[str, Any], rng: random.Random) -> Mutant | None:
        path = chosen(recipe, rng, fits)
        if path is None:
            return None
        at(recipe, path[:-1])[path[-1]] = rng.choice(others)
        named = next(
            str(part) for part in reversed(path) if isinstance(part, str) and part not in ("init_args", "class_path")
        )
        return Mutant(recipe_yaml.dump(recipe), named)

    return mutate


def doubled(recipe: dict[str, Any], rng: random.Random) -> Mutant | None:
    lines = recipe_yaml.dump(recipe).splitlines()
    number = rng.choice([i for i, line in enumerate(lines) if re.match(r" *\w+: \S", line)])
    key = lines[number].split(":")[0].strip()
    lines.insert(number, lines[number])
    return Mutant("\n".join(lines), f"{key!r} is used twice, in lines {number + 1} and {number + 2}")


MUTATIONS = {
    "misspelt key": misspelt,
    "text for a number": replaced(is_number, "abc", "1..2", "--3", "none"),
    "list for a number": replaced(is_number, [[1, [2]]], ["a"]),
    "mapping for a number": replaced(is_number, {"a": 1}),
    "word for a truth": replaced(lambda _, value: isinstance(value, bool), "maybe", 2.5),
    "truth for a class": replaced(is_class, True, False),
    "list for a class": replaced(is_class, ["SDS"]),
    "stranger for a class": replaced(is_class, "torch.nn.Linear", "os.system", "nowhere.Mine", "no/file.yaml", "Zzz"),
    "stranger's path": replaced(
        lambda key, _: key == "class_path", "torch.nn.Linear", "os.system", 7, None, [], "a..b"
    ),
    "no arguments": replaced(lambda key, _: key == "init_args", None, 3, "text", []),
    "number for a group": replaced(
        lambda _, value: isinstance(value, dict) and "max_steps" in value, 5, "text", True, [1]
    ),
    "key twice": doubled,
}


@cache
def recipe_of(name: str) -> Any:
    return recipe_library.read(recipe_library.find(name))


def mutant(number: int) -> tuple[str, str, Mutant]:
    """A case that depends only on its number."""
    rng = random.Random(number)
    while True:
        name, kind = rng.choice(RECIPES), rng.choice(list(MUTATIONS))
        made = MUTATIONS[kind](copy.deepcopy(recipe_of(name)), rng)
        if made is not None:
            return name, kind, made


def hangs(*_: object) -> None:
    raise TimeoutError(f"took more than {LIMIT} s")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(CASES))
def test_a_recipe_with_an_error_is_refused_by_name(cli, folder, number):
    name, kind, made = mutant(number)
    (folder / "mutant.yaml").write_text(made.text)
    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(LIMIT)
    try:
        result = cli("fit", "--config", "mutant.yaml", "--print_config")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    about = f"{kind} in {name}: {result.err}\n{made.text if result.code == 0 else ''}"
    assert result.code == 2, about
    assert len(result.err.splitlines()) == 1, about
    assert not PARSER_WORDS.search(result.err), about
    assert made.named in result.err, about
    assert len(result.err) < 600, about
    assert not (folder / "runs").exists()
