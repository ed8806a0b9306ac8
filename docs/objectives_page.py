"""The page of objectives, made from the classes and from one measured step of each; see conf.py."""

import inspect
import json
import re
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import scoredistill.losses
from scoredistill import Distiller, recipe_library
from scoredistill.critics import Critic, TrainedPart
from scoredistill.losses import Objective
from scoredistill.training.callbacks.cost import outermost

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

FAMILIES = {
    "distillation": "One gradient, nested",
    "differences": "Differences of two predictions",
    "inversion": "The noise is found",
    "control": "The noise is chosen or weighed",
    "picture": "A term of the picture",
    "variational": "VSD with another critic",
    "vardiu": "A posterior in place of the critic",
    "weighted": "Other weights of the density ratio",
    "score_identity": "Scalars through teacher and critic",
    "few_step": "One and few steps",
    "segments": "Inside the steps of a student",
    "adversarial": "A term around any objective",
}
"""Pages of the package in their order."""

INTRODUCTION = """# Objectives

Every objective of the package, generated from the classes. The equation is the first line of a docstring. Calls are
counted, and memory is measured, in one step on the latents of a tiny Stable Diffusion with two samples, guidance 7.5
and a LoRA critic; memory is a multiple of that of SDS. *T* is a call of the teacher's network per sample, *C* of a
trained critic, *D* of a discriminator, *N* of another network, without the training of these networks.

All objectives run on particles (points, pictures, NeRF, meshes) and on one-step students, under diffusion and flow
teachers; `tests/test_carriers.py` runs each of them on six of these. Which one to choose is on
[a page of its own](../howto/objectives.md).
"""


TITLES = {
    "points": "Points: 256 particles of the class with modes of weight .3 and .7, guidance 1",
    "digits": "Pictures of digits: 100 particles, ten per class, guidance 4",
    "nerf": "The quickstart's NeRFs, shortened: 32 pixels, 160 steps",
    "student": "A one-step student of 25 modes",
}
"""Carriers of the studies."""

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "objectives.json"


def measurements() -> str:
    """Tables of the studies' results: mean over seeds and its standard error."""
    content = json.loads(RESULTS.read_text())
    parts = []
    for carrier, title in TITLES.items():
        rows = content["carriers"].get(carrier)
        if not rows:
            continue
        metrics = list(dict.fromkeys(metric for row in rows.values() for metric in row["metrics"]))
        names = " | ".join(metric.replace("_", " ") for metric in metrics)
        head = f"| objective | {names} | ms per step | calls per step |"
        lines = [f"**{title}**", "", head, f"|{'---|' * (len(metrics) + 3)}"]
        for name, row in rows.items():
            cells = [shown(row["metrics"].get(metric)) for metric in metrics]
            cost = ("seconds_per_step", 1000, ".1f"), ("network_calls_per_step", 1, "g")
            cells += [format(factor * row[key], kind) if key in row else "" for key, factor, kind in cost]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, f"Made by `{content['command']}`, torch {content['versions']['torch']}."]) + "\n"


def shown(value: dict[str, float] | None) -> str:
    """A mean with its standard error."""
    return "failed" if value is None else f"{value['mean']:.3g} ± {value.get('standard_error', 0.0):.1g}"


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations create and that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._add(value)
        return result

    def _add(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@contextmanager
def counted(parts: dict[str, list[torch.nn.Module]]) -> Iterator[dict[str, int]]:
    """Rows of the calls of each part's networks."""
    rows = dict.fromkeys(parts, 0)
    hooks = []
    for name, networks in parts.items():
        for network in networks:

            def count(module: torch.nn.Module, arguments: tuple[Tensor, ...], name: str = name) -> None:
                rows[name] += len(arguments[0])

            hooks.append(network.register_forward_pre_hook(count))
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


def measured(name: str) -> tuple[str, int]:
    """The calls of a generator step, as text, and its peak memory in bytes."""
    from carriers import CARRIERS, OBJECTIVES

    torch.manual_seed(0)
    carrier = CARRIERS["stable_diffusion"]()
    distiller = Distiller(carrier.generator, carrier.teacher, OBJECTIVES[name](carrier), carrier.guidance)
    critics = [each for each in distiller.critics if isinstance(each, Critic)]
    others = [each for each in distiller.critics if not isinstance(each, Critic)]
    parts = {
        "T": list(outermost(distiller.teacher)),
        "C": [network for part in critics for network in outermost(part)],
        "D": [network for part in distiller.discriminators for network in outermost(part)],
        "N": [network for part in others if not holds(part, critics) for network in outermost(part)],
    }
    sample, rng = distiller.generate(carrier.batch), torch.Generator().manual_seed(0)
    rows, live = len(sample.x), LiveBytes()
    with counted(parts) as found, live:
        distiller.evaluate(sample, t=0.5, progress=0.6, rng=rng).loss.backward()
    calls = [f"{count / rows:g} {part}" for part, count in found.items() if count]
    return " + ".join(calls), live.peak


def holds(part: TrainedPart, critics: list[Critic]) -> bool:
    """Whether a part only adds an error to one of the critics."""
    return any(child is critic for child in part.modules() for critic in critics)


def equation(kind: type) -> str:
    """The first formula of a docstring, or its first sentence."""
    paragraph = inspect.getdoc(kind).partition("\n\n")[0]  # type: ignore[union-attr]
    text = " ".join(paragraph.split()).replace("|", "\\|")
    return text if "`" in text else f"`{text}`"


def source(kind: type) -> str:
    """The paper's year and number."""
    found = re.search(r'" \((\d{4})\), (arXiv:\d{4}\.\d{4,5})', " ".join((inspect.getdoc(kind) or "").split()))
    return f"{found[1]}, {found[2]}" if found else ""


def recipes() -> dict[str, str]:
    """Name of each class -> the shipped values of `model.loss`."""
    found: dict[str, list[str]] = {}
    for each in recipe_library.recipes():
        if each.name.startswith("losses/"):
            kind = recipe_library.read(each.path)["class_path"]
            found.setdefault(kind.rpartition(".")[2], []).append(f"`{each.name.removesuffix('.yaml')}`")
    return {kind: ", ".join(names) for kind, names in found.items()}


def page() -> str:
    """The whole page."""
    from carriers import OBJECTIVES

    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    public = (getattr(scoredistill.losses, name) for name in scoredistill.losses.__all__)
    kinds = [
        kind
        for kind in public
        if inspect.isclass(kind) and issubclass(kind, Objective) and not inspect.isabstract(kind)
    ]
    costs = {kind: measured(kind.__name__) for kind in kinds if kind.__name__ in OBJECTIVES}
    torch.set_default_dtype(dtype)
    unit, shipped, parts = costs[scoredistill.losses.SDS][1], recipes(), [INTRODUCTION]
    for family, title in FAMILIES.items():
        own = sorted(
            (k for k in kinds if k.__module__.endswith(f".{family}")), key=lambda k: inspect.getsourcelines(k)[1]
        )
        if not own:
            continue
        parts.append(f"## {title}\n\n| objective | equation | calls | memory | paper | recipe |\n|{'---|' * 6}")
        for kind in own:
            calls, memory = costs.get(kind, ("", None))  # regression alone runs on no carrier
            share = "" if memory is None else f"{memory / unit:.2f}"
            cells = (f"`{kind.__name__}`", equation(kind), calls, share, source(kind))
            parts[-1] += f"\n| {' | '.join((*cells, shipped.get(kind.__name__, '')))} |"
    return "\n\n".join(parts) + "\n"
