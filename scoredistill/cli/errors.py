"""One clear message for every error, in place of a stack trace."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from scoredistill.cli import names
from scoredistill.recipe_library import did_you_mean

GENERIC = (
    r"Expected a |Subtypes|Errors|Does not validate|Given value|Not a valid subclass|Subclass types expect|"
    r"a class path|a dict with|Not of type Tensor: not a list$"
)
"""Lines of a parser's message that only say that a value is of another type."""


class UsageError(Exception):
    """Something is wrong with what was asked for; the message says what, and what to do."""


@dataclass
class _Place:
    """Where in a message of nested problems we are: one key, and perhaps the class that it was given."""

    indent: int
    keys: list[str] = field(default_factory=list)
    class_path: str | None = None


def explain(message: str, valid_keys: Iterable[str]) -> str:
    """The essential line of a parser's message, with a suggestion.

    jsonargparse reports a tree: for each key, for each type that it may have, what did not fit. The branch that came
    nearest is the one in which a class was found and one of its options was not.

    Args:
        message: the parser's.
        valid_keys: every key of the parser, dotted.
    """
    for look in (_unknown_key, _unrecognised, _missing, _linked):
        found = look(message, list(valid_keys))
        if found:
            return found
    problems = list(_problems(message))
    found = _classless(message, problems)
    if found:
        return found
    for judge in (_option, _required, _class):
        for place, text in problems:
            found = judge(place, text)
            if found:
                return f"{'.'.join(place.keys)}: {found}"
    return _value(message, problems)


def _unknown_key(message: str, valid: list[str]) -> str | None:
    match = re.match(r"Group '(\S+)' does not accept option '(\S+)'|Option '(\S+)' is not accepted", message)
    if match is None:
        return None
    return _no_key(f"{match[1]}.{match[2]}" if match[1] else match[3], valid)


def _no_key(key: str, valid: list[str]) -> str:
    """Say that a key does not exist, and which ones there are where it goes wrong."""
    parts = key.split(".")
    depth = next((i for i in range(len(parts)) if not _below(parts[: i + 1], valid)), len(parts) - 1)
    siblings = sorted({other.split(".")[depth] for other in _below(parts[:depth], valid) if other.count(".") >= depth})
    above = ".".join(parts[:depth])
    hint = did_you_mean(parts[depth], siblings) or f"There are {', '.join(siblings)}."
    return f"{key}: {above or 'a recipe'} has no key {parts[depth]!r}. {hint}"


def _below(parts: list[str], valid: list[str]) -> list[str]:
    prefix = ".".join(parts)
    return [key for key in valid if not prefix or key == prefix or key.startswith(f"{prefix}.")]


def _unrecognised(message: str, valid: list[str]) -> str | None:
    match = re.match(r"unrecognized arguments: (\S+)", message, flags=re.IGNORECASE)
    if match is None:
        return None
    word = match[1].split("=")[0]
    if not word.startswith("-"):
        return f"{word!r} is not expected there; options begin with --, a recipe comes after --config"
    return _no_key(word.lstrip("-"), valid)


def _missing(message: str, valid: list[str]) -> str | None:
    match = re.match(r"the following arguments are required: (.+)", message)
    return match and f"{match[1]} missing: give it in a recipe (--config RECIPE) or as an option"


def _linked(message: str, valid: list[str]) -> str | None:
    match = re.match(r'Linked "(\S+)" must be given via "(\S+)"', message)
    return match and f"{match[1]} follows {match[2]}: set that instead"


def _problems(message: str) -> Iterable[tuple[_Place, str]]:
    """Every line that states a problem, with the key and class that it is about, from the indentation."""
    stack: list[_Place] = []
    for line in message.splitlines():
        text = line.strip().removeprefix("- ")
        if not text:
            continue
        indent = len(line) - len(line.lstrip())
        while stack and stack[-1].indent >= indent:
            stack.pop()
        key = re.match(r'Parser key "(\S+)":\s*(.*)', text)
        given = re.match(r"Problem with given class_path '(\S+)':", text)
        above = stack[-1] if stack else _Place(-1)
        if key:
            stack.append(_Place(indent, [*above.keys, key[1]], None))
            if key[2]:
                yield stack[-1], key[2]
        elif given:
            stack.append(_Place(indent, above.keys, given[1]))
        else:
            yield above, text


def _option(place: _Place, text: str) -> str | None:
    match = re.search(r"Option '(\S+)' is not accepted(?:.*class_path='([\w.]+)')?", text)
    if match is None:
        return None
    class_path = match[2] or place.class_path or ""
    known = names.parameters_of(class_path)
    owner = class_path.rpartition(".")[2] or "it"
    hint = did_you_mean(match[1], known) or (f"There are {', '.join(known)}." if known else "")
    return f"{owner} has no option {match[1]!r}. {hint}".rstrip()


def _classless(message: str, problems: list[tuple[_Place, str]]) -> str | None:
    """An option of a field that has no class yet, so that nothing says what the option means."""
    option = re.search(r"NestedArg\(key='([^']+)', val=", message)
    base = next((found for _, text in problems if (found := re.search(r"([\w.]+) is abstract", text))), None)
    if option is None or base is None:
        return None
    key = ".".join(problems[0][0].keys)
    known = names.known_classes()
    kind = known.get(base[1].rpartition(".")[2])
    choices = [name for name, value in known.items() if kind and issubclass(value, kind) and value is not kind]
    fitting = [name for name in choices if option[1].split(".")[0] in names.parameters_of(name)] or choices
    hint = f", as in --{key} {fitting[0]}" if fitting else ""
    return f"{key}: it has no class yet whose option {option[1]!r} could be; name the class first{hint}"


def _required(place: _Place, text: str) -> str | None:
    match = re.search(r"the following arguments are required: (.+)", text)
    if match is None:
        return None
    wanted = match[1].rstrip(".")
    return f"{(place.class_path or 'it').rpartition('.')[2]} needs {wanted}"


def _class(place: _Place, text: str) -> str | None:
    """A class that is not there, or is of the wrong kind."""
    wrong = re.search(r"Import path (\S+) does not correspond to a subclass of (\S+)", text)
    if wrong:
        return f"{wrong[1]} is not a {wrong[2]}"
    lost = re.search(r"Expected a dot import path string: (\S+)|No module named '(\S+)'", text)
    absent = re.search(r"has no attribute '(\w+)'|cannot import name '(\w+)'|Unable to import .*?'([\w.]+)'", text)
    if lost is None and absent is None:
        return None
    name = (lost and lost[1]) or place.class_path or (lost or absent or [""])[0]
    if re.search(r"\.(ya?ml|json)$|/", name):
        return f"there is no file {name}, neither beside the recipe nor from the working directory"
    hint = did_you_mean(name.rpartition(".")[2], names.known_classes(optimizers=place.keys[-1:] == ["optimizer"]))
    module = lost and lost[2]
    if module and not hint:
        hint = f"There is no module {module!r}: it has to lie in the working directory or be installed."
    return f"there is no class {name!r}. {hint or 'Give the dotted path of a class, as in my_module.MyLoss.'}"


def _value(message: str, problems: list[tuple[_Place, str]]) -> str:
    """A value that no type accepts."""
    own = [text for _, text in problems if not re.match(GENERIC, text)]
    wanted = re.findall(r"Expected an? <?(?:class )?'?([\w.]+)'?>?", message)
    given = re.search(r"(?:Given value|Got value): (.*)", message)
    key = max((".".join(place.keys) for place, _ in problems), key=len, default="")
    prefix = f"{key}: " if key else ""
    if own:
        return f"{prefix}{own[0].removeprefix('Not of type Tensor: ')}"
    if wanted and given:
        kinds = ["null" if name == "NoneType" else name.rpartition(".")[2] for name in dict.fromkeys(wanted)]
        return f"{prefix}expected {' or '.join(kinds)}, got {given[1]}"
    return prefix + " ".join(message.split())
