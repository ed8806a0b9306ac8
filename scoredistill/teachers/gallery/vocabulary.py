"""The gallery's prompts, `[a] [size] [color] noun[, view view]`, and their parser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from scoredistill.teachers.gallery.views import View

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.16, 0.15),
    "orange": (0.96, 0.52, 0.13),
    "yellow": (0.97, 0.81, 0.20),
    "green": (0.22, 0.62, 0.28),
    "teal": (0.10, 0.62, 0.62),
    "blue": (0.18, 0.36, 0.83),
    "purple": (0.52, 0.27, 0.70),
    "pink": (0.96, 0.55, 0.68),
    "brown": (0.52, 0.33, 0.19),
    "white": (0.96, 0.96, 0.95),
    "gray": (0.55, 0.57, 0.60),
    "grey": (0.55, 0.57, 0.60),
    "black": (0.13, 0.13, 0.15),
}
"""Color words, and the albedo of a model's main material, display values in [0, 1]."""

SIZES: dict[str, float] = {"tiny": 0.34, "small": 0.5, "big": 0.8, "large": 0.8}
"""Size words, and the object's radius around the origin in world units."""

DEFAULT_SIZE = 0.7
"""The radius without a size word."""

ARTICLES = ("a", "an", "the", "one")


@dataclass(frozen=True)
class Phrase:
    """A parsed prompt.

    Args:
        noun, color, size, view: words of the vocabulary, or None if the prompt has none of that kind.
    """

    noun: str | None = None
    color: str | None = None
    size: str | None = None
    view: View | None = None


@dataclass(frozen=True)
class Vocabulary:
    """All words of prompts.

    Args:
        nouns, colors, sizes, views: the words of each kind.
    """

    nouns: tuple[str, ...]
    colors: tuple[str, ...] = tuple(COLORS)
    sizes: tuple[str, ...] = tuple(SIZES)
    views: tuple[str, ...] = get_args(View)

    def __str__(self) -> str:
        return (
            f"nouns: {', '.join(self.nouns)}; colors: {', '.join(self.colors)}; sizes: {', '.join(self.sizes)}; "
            f"after a comma: {', '.join(f'{view} view' for view in self.views)}"
        )

    def parse(self, prompt: str | None) -> Phrase:
        """Parse a prompt. None and the empty prompt are the unconditional model.

        Args:
            prompt: for example "a small blue mushroom, side view". Case is ignored.

        Raises:
            ValueError: if a word is not in the vocabulary, there are two words of a kind, or the noun is missing.
        """
        text = (prompt or "").lower().strip().rstrip(".")
        if not text:
            return Phrase()
        head, *tail = (part.strip() for part in text.split(","))
        view = self._view(tail, prompt)
        words = head.split()
        words = words[1:] if words and words[0] in ARTICLES else words
        kinds: dict[str, Sequence[str]] = {"noun": self.nouns, "color": self.colors, "size": self.sizes}
        parsed: dict[str, str] = {}
        for word in words:
            kind = next((kind for kind, known in kinds.items() if word in known), None)
            if kind is None:
                raise ValueError(f"unknown word {word!r} in prompt {prompt!r}; the gallery has {self}")
            if kind in parsed:
                raise ValueError(f"prompt {prompt!r} has two {kind}s, {parsed[kind]!r} and {word!r}")
            parsed[kind] = word
        if "noun" not in parsed or words[-1] != parsed["noun"]:
            raise ValueError(f"prompt {prompt!r} must have its noun last; the gallery has {self}")
        return Phrase(parsed["noun"], parsed.get("color"), parsed.get("size"), view)

    def _view(self, tail: Sequence[str], prompt: str | None) -> View | None:
        if not tail:
            return None
        words = tail[0].split()
        if len(tail) > 1 or len(words) != 2 or words[1] != "view" or words[0] not in self.views:
            raise ValueError(f"unknown words {', '.join(tail)!r} in prompt {prompt!r}; the gallery has {self}")
        return cast(Literal["front", "side", "back", "overhead"], words[0])
