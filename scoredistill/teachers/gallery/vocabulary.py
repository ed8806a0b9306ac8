"""The gallery's words: `[a] [size] [color] noun[, view view]`."""

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
"""Color words and the albedo that they give to a model's main material, display values in [0, 1]."""

SIZES: dict[str, float] = {"tiny": 0.34, "small": 0.5, "big": 0.8, "large": 0.8}
"""Size words and the radius of the ball about the origin that the object then fills, world units."""

DEFAULT_SIZE = 0.7
"""The ball's radius without a size word."""

ARTICLES = ("a", "an", "the", "one")


@dataclass(frozen=True)
class Phrase:
    """A prompt, understood. A field that is None was not mentioned; no noun means any of them.

    Args:
        noun, color, size, view: words of the vocabulary.
    """

    noun: str | None = None
    color: str | None = None
    size: str | None = None
    view: View | None = None


@dataclass(frozen=True)
class Vocabulary:
    """All words that a prompt may use.

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
        """Understand a prompt; None and an empty one say nothing, which is the unconditional model.

        Args:
            prompt: for instance "a small blue mushroom, side view"; upper and lower case are the same.

        Raises:
            ValueError: for a word outside the vocabulary, which it names, two words of a kind, or no noun.
        """
        text = (prompt or "").lower().strip().rstrip(".")
        if not text:
            return Phrase()
        head, *tail = (part.strip() for part in text.split(","))
        view = self._view(tail, prompt)
        words = head.split()
        words = words[1:] if words and words[0] in ARTICLES else words
        kinds: dict[str, Sequence[str]] = {"noun": self.nouns, "color": self.colors, "size": self.sizes}
        found: dict[str, str] = {}
        for word in words:
            kind = next((kind for kind, known in kinds.items() if word in known), None)
            if kind is None:
                raise ValueError(f"unknown word {word!r} in prompt {prompt!r}; the gallery knows {self}")
            if kind in found:
                raise ValueError(f"prompt {prompt!r} has two {kind}s, {found[kind]!r} and {word!r}")
            found[kind] = word
        if "noun" not in found or words[-1] != found["noun"]:
            raise ValueError(f"prompt {prompt!r} must name its noun last; the gallery knows {self}")
        return Phrase(found["noun"], found.get("color"), found.get("size"), view)

    def _view(self, tail: Sequence[str], prompt: str | None) -> View | None:
        if not tail:
            return None
        words = tail[0].split()
        if len(tail) > 1 or len(words) != 2 or words[1] != "view" or words[0] not in self.views:
            raise ValueError(f"unknown words {', '.join(tail)!r} in prompt {prompt!r}; the gallery knows {self}")
        return cast(Literal["front", "side", "back", "overhead"], words[0])
