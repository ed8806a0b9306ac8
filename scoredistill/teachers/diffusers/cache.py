"""Disk cache of prompt embeddings, so that text encoders are loaded only for new prompts."""

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
"""Value of `folder` for `scoredistill/prompts` in the user's cache directory."""


@dataclass(frozen=True)
class Reading:
    """The text encoders' result for one text.

    Args:
        embeddings: one row, on the CPU.
        truncated: the used and the cut part of the text, for each tokenizer that truncates it.
    """

    embeddings: TextEmbeddings
    truncated: tuple[tuple[str, str], ...] = ()


class EmbeddingCache:
    """One safetensors file per text, named by the SHA-256 hash of the encoders' key and the text.

    The file also contains key and text. A damaged or unrelated file is ignored with a warning, and replaced. Files are
    written atomically, so processes can share a folder. If the folder is not writable, there is a warning, and its
    files are still read.

    Args:
        folder: folder of the files, created if necessary; user: in the user's cache directory.
        key: identifies the encoders.
    """

    def __init__(self, folder: str, key: str) -> None:
        self.folder = user_folder() if folder == USER else Path(folder).expanduser()
        self.key = key
        self._writable = True

    def path(self, text: str) -> Path:
        """Path of the text's file, whether or not it exists."""
        name = hashlib.sha256(json.dumps([self.key, text]).encode()).hexdigest()
        return self.folder / f"{name}.safetensors"

    def read(self, text: str) -> Reading | None:
        """The stored result for a text; None if there is no valid file."""
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
        """Store the result for a text."""
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
                f"prompts.cache: cannot write to {self.folder}, so the next run will load the text encoders again; set "
                f"another folder, or null for no cache: {error}",
                stacklevel=2,
            )


def user_folder() -> Path:
    """`scoredistill/prompts` in $XDG_CACHE_HOME, or in ~/.cache if that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scoredistill" / "prompts"
