"""How laws are run, and what the error says about one that does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from scoredistill.recipe_library import did_you_mean

Setting = TypeVar("Setting")
DTYPES = (torch.float32, torch.float64)


class BrokenLaw(Exception):
    """A law does not hold; the message says by how much and where."""


def run(
    subject: object,
    setting: Setting,
    laws: Sequence[Callable[[Setting], None]],
    only: Sequence[str] | None,
    skip: Mapping[str, str] | None,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Run laws in order, without any effect on torch's global random numbers.

    Args:
        subject: what is checked, for the message.
        setting: what every law receives.
        laws: functions whose name is the law's and whose docstring states it.
        only: names of the laws to run; None: all of them.
        skip: names of laws that do not apply, each with the reason; None: none.
        dtype: torch's default type while the laws run.

    Raises:
        AssertionError: naming the first law that does not hold.
        ValueError: if a name is not that of a law, or a reason is empty.
    """
    names = [law.__name__ for law in laws]
    skip = skip or {}
    for name in [*(only or ()), *skip]:
        if name not in names:
            hint = did_you_mean(name, names) or f"There are {', '.join(names)}."
            raise ValueError(f"there is no law {name!r}. {hint}")
    for name, reason in skip.items():
        if not reason.strip():
            raise ValueError(f"skip: give the reason why {name!r} does not apply")
    for law in laws:
        if law.__name__ in skip or (only is not None and law.__name__ not in only):
            continue
        statement = " ".join((law.__doc__ or "").split()).rstrip(".")
        prefix = f"{type(subject).__name__} breaks the law {law.__name__!r} ({statement})"
        try:
            with _setting(dtype):
                law(setting)
        except BrokenLaw as broken:
            raise AssertionError(f"{prefix}: {broken}") from None
        except Exception as error:
            raise AssertionError(f"{prefix}: it raises {type(error).__name__}: {error}") from error


@contextmanager
def _setting(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(before)


def hold(condition: bool, message: str) -> None:
    """Raise unless a condition holds.

    Raises:
        BrokenLaw: with the message.
    """
    if not condition:
        raise BrokenLaw(message)


def agree(actual: Tensor, expected: Tensor, what: str, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Require two tensors to have the same shape and, within a tolerance, the same values.

    Args:
        actual: the result.
        expected: the reference.
        what: what the tensors are, for the message.
        rtol: tolerance relative to the reference.
        atol: absolute tolerance.

    Raises:
        BrokenLaw: with the largest deviation, its tolerance and its index.
    """
    has_shape(actual, expected.shape, what)
    actual, expected = actual.detach().double(), expected.detach().double()
    deviation = (actual - expected).abs()
    tolerance = atol + rtol * expected.abs()
    # A NaN is no agreement, and equal infinities are.
    wrong = ~((deviation <= tolerance) | (actual == expected))
    if not bool(wrong.any()):
        return
    excess = torch.where(wrong, (deviation - tolerance).nan_to_num(nan=torch.inf), -torch.inf)
    index = tuple(int(i) for i in torch.unravel_index(excess.argmax(), excess.shape))
    raise BrokenLaw(
        f"{what} is {actual[index]:.6g} and must be {expected[index]:.6g} at index {list(index)}: "
        f"largest deviation {deviation[index]:.3g}, tolerance {tolerance[index]:.3g}, "
        f"{int(wrong.sum())} of {wrong.numel()} values"
    )


def has_shape(value: Tensor, shape: Sequence[int], what: str) -> None:
    """Require a tensor's shape.

    Raises:
        BrokenLaw: if it has another one.
    """
    hold(tuple(value.shape) == tuple(shape), f"{what} has shape {tuple(value.shape)} and must have {tuple(shape)}")


def is_finite(value: Tensor, what: str) -> None:
    """Require finite values.

    Raises:
        BrokenLaw: with the first value that is not finite, and its index.
    """
    wrong = ~torch.isfinite(value.detach())
    if bool(wrong.any()):
        index = tuple(int(i) for i in wrong.nonzero()[0])
        raise BrokenLaw(
            f"{what} is {float(value[index])} at index {list(index)}, {int(wrong.sum())} of {wrong.numel()}"
        )


def finite_or_refused(
    what: str, may_refuse: bool, dtype: torch.dtype, compute: Callable[..., Tensor], *arguments: object
) -> None:
    """Require finite values, or a `ValueError`.

    Args:
        what: the result, for the message.
        may_refuse: whether a `ValueError` is allowed.
        dtype: of the result.
        compute: the function.
        arguments: of the function.

    Raises:
        BrokenLaw: if a value is not finite or of another type, or the error is not allowed.
    """
    try:
        value = compute(*arguments)
    except ValueError as error:
        hold(may_refuse, f"{what} is refused: {error}")
        return
    is_finite(value, what)
    hold(value.dtype == dtype, f"{what} is {value.dtype} and must be {dtype}")


def ends(dtype: torch.dtype) -> Tensor:
    """Both ends of time, the smallest steps away from them, and the middle, (7,)."""
    one = torch.ones((), dtype=dtype)
    at = torch.finfo(dtype)
    below = torch.nextafter(one, 0 * one).item()
    return torch.tensor([0.0, at.tiny, at.eps, 0.5, 1 - at.eps, below, 1.0], dtype=dtype)


def rng(seed: int = 0) -> torch.Generator:
    """A generator of random numbers."""
    return torch.Generator().manual_seed(seed)


@contextmanager
def unchanged(*modules: nn.Module, what: str) -> Iterator[None]:
    """Require the modules to have the same parameters, buffers, modes and gradients after the `with` block.

    Raises:
        BrokenLaw: naming the first tensor that differs.
    """

    def state() -> dict[str, tuple[Tensor, object]]:
        return {
            f"{type(module).__name__}.{name}": (value.detach().clone(), value.grad)
            for module in modules
            for name, value in (*module.named_parameters(), *module.named_buffers())
        }

    def modes() -> list[bool]:
        return [each.training for module in modules for each in module.modules()]

    before, training = state(), modes()
    yield
    after = state()
    hold(before.keys() == after.keys(), f"{what} adds or removes parameters or buffers")
    for name, (value, grad) in before.items():
        agree(after[name][0], value, f"{what} changes {name}, which")
        hold(after[name][1] is grad, f"{what} leaves a gradient in {name}")
    hold(modes() == training, f"{what} leaves modules in another mode (training or evaluation)")


@contextmanager
def global_numbers_untouched(what: str) -> Iterator[None]:
    """Require torch's global random numbers to be the same after the `with` block.

    Raises:
        BrokenLaw: if they were drawn from.
    """
    state = torch.get_rng_state()
    yield
    message = f"{what} draws from torch's global random numbers; draw from rng"
    hold(torch.equal(torch.get_rng_state(), state), message)
