"""The YAML of recipes, without duplicate keys, unlimited aliases and surprising conversions of text.

Scalars follow the core schema of YAML 1.2, restricted to the forms on which all readers agree: `true` and `false` are
booleans, an unquoted `null` or an empty value is null, decimal and hexadecimal integers and decimals with a point are
numbers. Everything else is text, including `no`, `~`, `1e3`, `12:30` and `2026-01-01`. A field that takes a number
converts `1e3`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml  # type: ignore[import-untyped]

LARGEST = 100_000
"""Largest number of values in a file, with all aliases expanded."""

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)$|0x[0-9a-fA-F]+$")
_FLOAT = re.compile(r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?$|[-+]?\.[0-9]+(?:[eE][-+][0-9]+)?$|[-+]?\.inf$|\.nan$")
EXPONENT = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012
    yaml_constructors = {  # noqa: RUF012
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("bool", "float", "int", "map", "null", "seq", "str")
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("[Tt]rue$|TRUE$|[Ff]alse$|FALSE$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("null$|$"), ["n", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("<<$"), ["<"])


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.Node:
        lines = data.splitlines() not in ([], [data])
        # PyYAML would write other line endings in a form that it does not read back.
        return self.represent_scalar("tag:yaml.org,2002:str", data, '"' if lines else None)


_Dumper.add_representer(str, _Dumper.represent_str)

# Other readers parse these as numbers, so they are quoted as text.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+0123456789"))


def load(text: str) -> Any:
    """Parse YAML text.

    Args:
        text: one document.

    Raises:
        yaml.YAMLError: if it is not YAML, a mapping has a duplicate key, an alias contains itself, or the expanded
            aliases have more than `LARGEST` values.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {}, set())
        return loader.construct_document(node)
    except (ValueError, RecursionError) as error:  # a number that Python rejects, or a file that is nested too deeply
        raise yaml.YAMLError(str(error)) from error
    finally:
        loader.dispose()


def dump(value: Any) -> str:
    """Format plain data as YAML that `load` reads back.

    Args:
        value: data of dicts, lists, text, numbers, booleans and None.
    """
    return _dump(value, flow=False)


def dump_line(value: Any) -> str:
    """Format plain data as YAML on one line."""
    return _dump(value, flow=True).removesuffix("\n").removesuffix("\n...")


def _dump(value: Any, flow: bool) -> str:
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=flow, allow_unicode=True, sort_keys=False, width=float("inf")
    )
    return text


def _size(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """Number of values below a node, with aliases expanded."""
    if id(node) in known:
        return known[id(node)]
    if id(node) in above:
        raise yaml.MarkedYAMLError(problem="an alias contains itself", problem_mark=node.start_mark)
    if isinstance(node, yaml.MappingNode):
        _refuse_duplicates(node)
    size = 1 + sum(_size(child, known, above | {id(node)}) for child in _children(node))
    if size > LARGEST:
        raise yaml.MarkedYAMLError(
            problem=f"contains more than {LARGEST:,} values with its aliases expanded", problem_mark=node.start_mark
        )
    known[id(node)] = size
    return size


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _refuse_duplicates(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            raise yaml.MarkedYAMLError(
                problem=f"the key {key.value!r} is used twice, in lines {lines[key.value]} and {line}: remove one",
                problem_mark=key.start_mark,
            )
        lines[key.value] = line
