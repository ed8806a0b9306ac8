"""Pictures in tar files in the WebDataset format."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path

from scoredistill.data.picture_files import SUFFIXES, decode
from scoredistill.data.source import ImageSource, Item, class_count, floats
from scoredistill.ranges import require


@dataclass(frozen=True)
class Member:
    """Position of a picture in a tar file.

    Args:
        shard: the tar file.
        name: name of the picture in it.
        offset, size: position and length in bytes.
        label: its class, or None.
        caption: its caption in UTF-8, or None.
    """

    shard: Path
    name: str
    offset: int
    size: int
    label: int | None
    caption: bytes | None

    def read(self) -> bytes:
        """Read the picture's bytes."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class WebDatasetShards(ImageSource):
    """Pictures in uncompressed tar files in the WebDataset format: key.png (.jpg, .webp) with key.cls or key.json.

    The indices of the files are read once and kept in memory, so that any picture can be read by its index and training
    draws reproducibly and uniformly from all shards. A .cls file contains the class as a number, a .json file under
    "label"; a .txt file contains the caption, a .json file under `text_key`. Keys without a picture are ignored.

    Args:
        shards: the tar files: a pattern (`data/train-*.tar`, `data/train-{000000..000099}.tar`) or a list of files.
        resolution: side of the central square in pixels, >= 1.
        gray: one channel instead of three.
        text_key: key of captions in .json files; img2dataset uses caption.

    Raises:
        FileNotFoundError: if the pattern matches no file, a file is missing, or none of them contains a picture.
        ValueError: if a file is not an uncompressed tar file, a label is not a number, or some pictures have a label
            and others have none; on access, if a picture cannot be read.
    """

    threads = 4

    def __init__(
        self, shards: str | Sequence[str], resolution: int, gray: bool = False, text_key: str = "text"
    ) -> None:
        require(">= 1", resolution=resolution)
        self.resolution = resolution
        self.gray = gray
        self.shards = find_shards(shards)
        self.members = [member for shard in self.shards for member in read_index(shard, text_key)]
        if not self.members:
            raise FileNotFoundError(f"{shards}: the shards contain no pictures ({', '.join(SUFFIXES)})")
        labels = {f"{m.shard}: {m.name}": m.label for m in self.members if m.label is not None}
        if labels and len(labels) != len(self.members):
            bare = next(member for member in self.members if member.label is None)
            raise ValueError(f"{bare.shard}: {bare.name} has no label (.cls or .json), while other pictures have one")
        super().__init__(
            (1 if gray else 3, resolution, resolution),
            class_count(list(labels.values()), list(labels).__getitem__) if labels else None,
        )

    @cached_property
    def captions(self) -> tuple[str, ...] | None:
        texts = [member.caption for member in self.members]
        if all(text is None for text in texts):
            return None
        captions = []
        for member, text in zip(self.members, texts, strict=True):
            if text is None:
                raise ValueError(f"{member.shard}: {member.name} has no caption (.txt or .json), while others have one")
            try:
                captions.append(text.decode("utf-8-sig").strip())
            except UnicodeDecodeError as error:
                raise ValueError(f"{member.shard}: the caption of {member.name} is not UTF-8 ({error})") from error
        return tuple(captions)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> Item:
        member = self.members[self._checked(index)]
        picture = decode(member.read(), self.resolution, self.gray, f"{member.shard}: {member.name}")
        return floats(picture), member.label

    def contents(self) -> Iterator[bytes]:
        for member in self.members:
            yield f"{member.name} {member.label}\n".encode() + member.read()


def find_shards(shards: str | Sequence[str]) -> list[Path]:
    """The files that match a pattern, sorted, or the files of a list in its order.

    Raises:
        FileNotFoundError: if there are none, or a listed file does not exist.
    """
    patterns = [shards] if isinstance(shards, str) else list(shards)
    paths: list[Path] = []
    for name in (name for pattern in patterns for name in _expanded(pattern)):
        files = sorted(Path(match) for match in glob(name, recursive=True))
        if not files:
            raise FileNotFoundError(f"{name}: matches no shard")
        paths += files
    if not paths:
        raise FileNotFoundError("the list of shards is empty")
    return paths


def read_index(shard: Path, text_key: str = "text") -> list[Member]:
    """The pictures of one tar file in its order, with their labels and captions.

    Args:
        shard: the file.
        text_key: key of captions in .json files.

    Raises:
        ValueError: if it is not an uncompressed tar file, or a label is not a number.
    """
    groups: dict[str, dict[str, tarfile.TarInfo]] = {}
    labels: dict[str, int] = {}
    captions: dict[str, bytes] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for info in tar:
                folder, _, base = info.name.rpartition("/")
                key, _, ending = base.partition(".")
                if not info.isfile() or not key:
                    continue
                parts = groups.setdefault(f"{folder}/{key}", {})
                parts["." + ending.lower()] = info
                if ending.lower() in ("cls", "json"):
                    _read_label(tar, info, labels, f"{folder}/{key}")
                if ending.lower() in ("txt", "json"):
                    _read_caption(tar, info, captions, f"{folder}/{key}", text_key)
    except tarfile.TarError as error:
        raise ValueError(f"{shard}: not an uncompressed tar file ({error})") from error
    return [
        Member(shard, info.name, info.offset_data, info.size, labels.get(key), captions.get(key))
        for key, parts in groups.items()
        for info in [next((parts[suffix] for suffix in SUFFIXES if suffix in parts), None)]
        if info is not None
    ]


def _read_label(tar: tarfile.TarFile, info: tarfile.TarInfo, labels: dict[str, int], key: str) -> None:
    """Store the label of a key; .cls has precedence over .json, which may contain other data."""
    text = _content(tar, info)
    try:
        if info.name.lower().endswith(".cls"):
            labels[key] = int(text.decode("utf-8-sig"))
        else:
            content = json.loads(text)
            if isinstance(content, dict) and content.get("label") is not None:
                labels.setdefault(key, int(str(content["label"])))  # int alone would accept 3.7 as 3
    except (ValueError, TypeError) as error:
        raise ValueError(f"{tar.name!s}: {info.name} contains no class number ({error})") from error


def _read_caption(
    tar: tarfile.TarFile, info: tarfile.TarInfo, captions: dict[str, bytes], key: str, text_key: str
) -> None:
    """Store the caption of a key; .txt has precedence over .json, which `_read_label` has already parsed."""
    text = _content(tar, info)
    if info.name.lower().endswith(".txt"):
        captions[key] = text
        return
    content = json.loads(text)
    if isinstance(content, dict) and isinstance(content.get(text_key), str):
        captions.setdefault(key, content[text_key].encode())


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    return b"" if file is None else file.read()


def _expanded(pattern: str) -> Iterator[str]:
    """Expand WebDataset's ranges {000..123}, lazily, so that the first missing file ends the expansion."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if match is None:
        yield pattern
        return
    first, last = match.groups()
    for number in range(int(first), int(last) + 1):
        for end in _expanded(pattern[match.end() :]):
            yield pattern[: match.start()] + str(number).zfill(len(first)) + end
