"""Embeddings on disk, so that text encoders are loaded once for a prompt and never again."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from scoredistill.files import write_atomically
from scoredistill.types import TextEmbeddings

USER = "user"
"""In place of a folder: `scoredistill/prompts` in the user's cache directory."""


@dataclass(frozen=True)
class Reading:
    """What the text encoders have read of one text.

    Args:
        embeddings: one row, on the CPU.
        truncated: what was kept and what was cut, for each tokenizer to which the text was too long.
    """

    embeddings: TextEmbeddings
    truncated: tuple[tuple[str, str], ...] = ()


class EmbeddingCache:
    """One safetensors file a text, named by the SHA-256 hash of the encoders' key and the text.

    The file also holds key and text, so that a file that was damaged, or that is something else under this name, is
    told from a good one; it is ignored with a warning and written anew. Files appear whole or not at all, so any number
    of processes may share a folder. A folder that cannot be written costs a warning, and what is in it is still read.

    Args:
        folder: where the files are, made if need be; user: in the user's cache directory.
        key: what tells the encoders from others.
    """

    def __init__(self, folder: str, key: str) -> None:
        self.folder = user_folder() if folder == USER else Path(folder).expanduser()
        self.key = key
        self._writable = True

    def path(self, text: str) -> Path:
        """The text's file, whether it is there or not."""
        name = hashlib.sha256(json.dumps([self.key, text]).encode()).hexdigest()
        return self.folder / f"{name}.safetensors"

    def read(self, text: str) -> Reading | None:
        """What the folder has of a text; None: nothing, or nothing that is whole."""
        from safetensors import SafetensorError, safe_open

        path = self.path(text)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                about = json.loads(file.metadata()["about"])
                embeddings = TextEmbeddings(**{name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
            if (about["key"], about["text"], len(embeddings)) != (self.key, text, 1):
                raise ValueError("it was written for another text")
            return Reading(embeddings, tuple((kept, cut) for kept, cut in about["truncated"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            warnings.warn(
                f"prompts.cache: ignoring {path}, which is not the embedding of {text!r}: {error}", stacklevel=2
            )
            return None

    def write(self, text: str, reading: Reading) -> None:
        """Keep what was read of a text."""
        from safetensors.torch import save

        if not self._writable:
            return
        embeddings = reading.embeddings
        parts = {"tokens": embeddings.tokens, "pooled": embeddings.pooled, "mask": embeddings.mask}
        about = json.dumps({"key": self.key, "text": text, "truncated": reading.truncated})
        content = save({name: part.contiguous() for name, part in parts.items() if part is not None}, {"about": about})
        try:
            write_atomically(self.path(text), lambda file: file.write(content))
        except OSError as error:
            self._writable = False
            warnings.warn(
                f"prompts.cache: cannot write to {self.folder}, so the text encoders will be loaded again in the next "
                f"run; name another folder, or null for none: {error}",
                stacklevel=2,
            )


def user_folder() -> Path:
    """`scoredistill/prompts` in $XDG_CACHE_HOME, or else in .cache of the home directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scoredistill" / "prompts"
