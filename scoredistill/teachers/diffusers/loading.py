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

from scoredistill.networks.weight_files import first_flaw

LIBRARIES = ("diffusers", "transformers")
"""Libraries from which the classes of a pipeline's parts are loaded."""


@dataclass(frozen=True)
class Source:
    """Location of a pipeline.

    Args:
        model: id on the hub, or a local folder.
        revision: branch, tag or commit of a hub repository; None: its main branch.
        variant: variant of the weight files, for example "fp16"; None: the default files.
    """

    model: str
    revision: str | None = None
    variant: str | None = None

    @cached_property
    def index(self) -> Mapping[str, Any]:
        """The pipeline's description: its class and the classes of its parts.

        Raises:
            ValueError: if there is no pipeline.
        """
        return self._index_and_commit[0]

    @property
    def commit(self) -> str | None:
        """Commit of the hub repository; None for a folder."""
        return self._index_and_commit[1]

    @cached_property
    def _index_and_commit(self) -> tuple[Mapping[str, Any], str | None]:
        from diffusers import DiffusionPipeline

        if Path(self.model).is_dir() and not (Path(self.model) / "model_index.json").is_file():
            raise ValueError(f"model: {self.model} is not the folder of a pipeline: it has no model_index.json")
        try:
            with quietly():
                index, commit = DiffusionPipeline.load_config(
                    self.model, revision=self.revision, return_commit_hash=True
                )
        except (OSError, ValueError) as error:
            raise ValueError(
                f"model: {self.model!r} is not a local folder, and could not be loaded from the hub: "
                f"{_first_line(error)}. Without a connection, set the folder of a downloaded or trained pipeline"
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
        """Sorted names of the parts that start with a prefix."""
        return sorted(name for name in self.index if name.startswith(prefix) and self.has(name))

    def read(self, part: str, dtype: torch.dtype | None = None) -> Any:
        """Load one part of the pipeline, of the class that the description names.

        Args:
            part: its name.
            dtype: dtype of its weights; None for parts without weights, such as schedulers and tokenizers.

        Raises:
            ValueError: if it is missing, or its weights are not safetensors.
        """
        if not self.has(part):
            raise ValueError(f"model: {self.model} has no {part}, which a {self.name} needs")
        kind = self._class_of(part)
        from safetensors import SafetensorError

        # `torch_dtype` is the name that all classes and versions accept.
        weights = {} if dtype is None else {"torch_dtype": dtype, "use_safetensors": True, "variant": self.variant}
        try:
            with quietly():
                return kind.from_pretrained(self.model, subfolder=part, revision=self.revision, **weights)
        except (OSError, ValueError, SafetensorError) as error:
            flaw = first_flaw(Path(self.model) / part)
            if flaw is not None:
                raise ValueError(f"model: {flaw}") from error
            raise ValueError(
                f"model: could not load the {part} of {self.model}: {_first_line(error)}. The weights must be "
                f"safetensors{f' of variant {self.variant!r}' if self.variant else ''}, because pickled ones are not "
                "loaded: load the pipeline once with diffusers and call save_pretrained"
            ) from error

    def _class_of(self, part: str) -> Any:
        """The class of a part.

        Only known libraries are allowed, because a description can name any module, and importing it runs its code.
        """
        library, name = self.index[part]
        if library not in LIBRARIES:
            raise ValueError(
                f"model: {self.model}: in model_index.json the {part} is from {library!r}; only classes of "
                f"{' and '.join(LIBRARIES)} are loaded"
            )
        module = importlib.import_module(library)
        kind = getattr(module, name, None) if name in dir(module) else None
        if not isinstance(kind, type) or not hasattr(kind, "from_pretrained"):
            raise ValueError(
                f"model: {self.model}: in model_index.json the {part} is a {name}, and {library} {module.__version__} "
                f"has no such class: install the version that saved the pipeline, or change model_index.json"
            )
        return kind

    def pipeline(self, parts: Mapping[str, object]) -> Any:
        """The pipeline with only the given parts."""
        import diffusers

        kind: Any = getattr(diffusers, self.name)
        parameters = inspect.signature(kind.__init__).parameters
        optional = {"requires_safety_checker": False} if "requires_safety_checker" in parameters else {}
        missing = {name: None for name, each in parameters.items() if each.default is each.empty and name != "self"}
        with quietly():
            return kind(**missing | dict(parts) | optional)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@contextmanager
def quietly() -> Iterator[None]:
    """Silence the libraries' log messages and progress bars inside the `with` block."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    modules = (diffusers_logging, transformers_logging)
    levels = [module.get_verbosity() for module in modules]
    bars = diffusers_logging.is_progress_bar_enabled()
    try:
        for module in modules:
            module.set_verbosity_error()
            module.disable_progress_bar()
        yield
    finally:
        for module, level in zip(modules, levels, strict=True):
            module.set_verbosity(level)
            if bars:
                module.enable_progress_bar()
