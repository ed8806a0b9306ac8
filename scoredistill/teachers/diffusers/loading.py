"""Reading the parts of a pipeline, one at a time."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from scoredistill.networks.weights import first_flaw

LIBRARIES = ("diffusers", "transformers")
"""Where a pipeline's parts may come from."""


@dataclass(frozen=True)
class Source:
    """Where a pipeline is.

    Args:
        model: id on the hub, or a local folder.
        revision: of a hub repository: branch, tag or commit; None: its main branch.
        variant: of the weights' files, "fp16" for example; None: the plain ones.
    """

    model: str
    revision: str | None = None
    variant: str | None = None

    @cached_property
    def index(self) -> Mapping[str, Any]:
        """The pipeline's description: its class and those of its parts.

        Raises:
            ValueError: if there is no pipeline, with what to do about it.
        """
        return self._described[0]

    @property
    def commit(self) -> str | None:
        """Commit of the hub's repository; None for a folder."""
        return self._described[1]

    @cached_property
    def _described(self) -> tuple[Mapping[str, Any], str | None]:
        from diffusers import DiffusionPipeline

        if Path(self.model).is_dir() and not (Path(self.model) / "model_index.json").is_file():
            raise ValueError(f"model: {self.model} is no pipeline's folder: it has no model_index.json")
        try:
            with quietly():
                index, commit = DiffusionPipeline.load_config(
                    self.model, revision=self.revision, return_commit_hash=True
                )
        except (OSError, ValueError) as error:
            raise ValueError(
                f"model: {self.model!r} is no local folder, and the hub did not give it: {_first_line(error)}. Without "
                "a connection give the folder of a pipeline that was downloaded before, or trained by yourself"
            ) from error
        return index, commit

    @property
    def name(self) -> str:
        """The pipeline's class."""
        return str(self.index["_class_name"])

    def has(self, part: str) -> bool:
        """Whether the pipeline has a part of this name."""
        return isinstance(self.index.get(part), list | tuple) and self.index[part][0] is not None

    def parts(self, prefix: str) -> list[str]:
        """Names of the parts that begin so, in order."""
        return sorted(name for name in self.index if name.startswith(prefix) and self.has(name))

    def read(self, part: str, dtype: torch.dtype | None = None) -> Any:
        """One part of the pipeline, of the class that its description names.

        Args:
            part: its name.
            dtype: of its weights; None: it has none, as schedulers and tokenizers.

        Raises:
            ValueError: if it is missing, or its weights are not safetensors.
        """
        if not self.has(part):
            raise ValueError(f"model: {self.model} has no {part}, which a {self.name} needs")
        kind = self._class_of(part)
        from safetensors import SafetensorError

        # `torch_dtype` is what every class and version understands.
        weights = {} if dtype is None else {"torch_dtype": dtype, "use_safetensors": True, "variant": self.variant}
        try:
            with quietly():
                return kind.from_pretrained(self.model, subfolder=part, revision=self.revision, **weights)
        except (OSError, ValueError, SafetensorError) as error:
            found = first_flaw(Path(self.model) / part)
            if found is not None:
                raise ValueError(f"model: {found}") from error
            raise ValueError(
                f"model: could not read the {part} of {self.model}: {_first_line(error)}. Weights have to be there as "
                f"safetensors{f' of variant {self.variant!r}' if self.variant else ''}; pickled ones are not read: "
                "load the pipeline once with diffusers and save_pretrained it"
            ) from error

    def _class_of(self, part: str) -> Any:
        """The class of a part. A description could name any module, and importing one runs its code."""
        library, name = self.index[part]
        if library not in LIBRARIES:
            raise ValueError(
                f"model: {self.model}: model_index.json has the {part} from {library!r}; only classes of "
                f"{' and '.join(LIBRARIES)} are loaded"
            )
        module = importlib.import_module(library)
        kind = getattr(module, name, None) if name in dir(module) else None
        if not isinstance(kind, type) or not hasattr(kind, "from_pretrained"):
            raise ValueError(
                f"model: {self.model}: model_index.json has a {name} as its {part}, and {library} {module.__version__} "
                f"has no such class: install the version that the pipeline was saved with, or name another class there"
            )
        return kind

    def pipeline(self, parts: Mapping[str, object]) -> Any:
        """The pipeline itself, of these parts and without its others."""
        import diffusers

        kind: Any = getattr(diffusers, self.name)
        wanted = inspect.signature(kind.__init__).parameters
        optional = {"requires_safety_checker": False} if "requires_safety_checker" in wanted else {}
        left_out = {name: None for name, each in wanted.items() if each.default is each.empty and name != "self"}
        with quietly():
            return kind(**left_out | dict(parts) | optional)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@contextmanager
def quietly() -> Iterator[None]:
    """Without the libraries' own notes and progress bars: what a user has to know is said by us, once."""
    import diffusers.utils.logging as ours
    import transformers.utils.logging as theirs

    levels, bars = (ours.get_verbosity(), theirs.get_verbosity()), ours.is_progress_bar_enabled()
    try:
        for each in (ours, theirs):
            each.set_verbosity_error()
            each.disable_progress_bar()
        yield
    finally:
        for each, level in zip((ours, theirs), levels, strict=True):
            each.set_verbosity(level)
            if bars:
                each.enable_progress_bar()
