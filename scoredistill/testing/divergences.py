"""Laws of f-divergences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scoredistill.divergences import Divergence
from scoredistill.testing.law import DTYPES, agree, has_shape, hold, is_finite, run


def check_divergence(
    divergence: Divergence, *, laws: Sequence[str] | None = None, skip: Mapping[str, str] | None = None
) -> None:
    """Check a divergence against the laws that every one satisfies.

    Args:
        divergence: what is checked.
        laws: names of the laws to run; None: all of them.
        skip: names of laws that do not apply, each with the reason; None: none.

    Raises:
        AssertionError: naming the law that does not hold, by how much, and where.
    """
    run(divergence, divergence, LAWS, laws, skip)


def shape_and_type(divergence: Divergence) -> None:
    """f, h and h_from_log are elementwise and keep the floating-point type."""
    for dtype in DTYPES:
        r = torch.tensor([[0.5, 1.0, 2.0], [0.1, 3.0, 10.0]], dtype=dtype)
        for name, value in _values(divergence, r).items():
            has_shape(value, r.shape, f"{name} of (2, 3) ratios")
            hold(value.dtype == dtype, f"{name} of {dtype} ratios is {value.dtype}")


def zero_at_one(divergence: Divergence) -> None:
    """f(1) = 0."""
    agree(divergence.f(torch.ones(1)), torch.zeros(1), "f(1)", atol=1e-15)


def convex(divergence: Divergence) -> None:
    """f is convex, strictly at r = 1."""
    r, second = _second_derivative(divergence)
    worst = int(second.argmin())
    hold(bool((second >= 0).all()), f"f''({float(r[worst]):.3g}) = {float(second[worst]):.3g}; it must be at least 0")
    middle = len(r) // 2
    hold(bool(second[middle] > 0), f"f''(1) = {float(second[middle]):.3g}; it must be above 0")


def h_is_r_squared_times_the_second_derivative(divergence: Divergence) -> None:
    """h(r) = r^2 f''(r)."""
    r, second = _second_derivative(divergence)
    agree(divergence.h(r), r**2 * second, "h at 61 ratios from 1e-3 to 1e3", rtol=1e-9, atol=1e-12)


def h_from_log_is_h(divergence: Divergence) -> None:
    """h_from_log(log r) = h(r)."""
    r = torch.logspace(-3, 3, 61)
    agree(divergence.h_from_log(r.log()), divergence.h(r), "h_from_log", rtol=1e-7, atol=1e-7)


def constant_means_constant(divergence: Divergence) -> None:
    """A divergence with constant = True has an h that does not depend on r."""
    if divergence.constant:
        h = divergence.h(torch.logspace(-6, 6, 13))
        agree(h, h[:1].expand_as(h), "h, which is marked as constant,", rtol=1e-12)


def finite(divergence: Divergence) -> None:
    """f and h are finite for r from 1e-12 to 1e12, and h is at least 0."""
    for dtype in DTYPES:
        r = torch.logspace(-12, 12, 49, dtype=dtype)
        for name, value in _values(divergence, r).items():
            is_finite(value, f"{name} in {dtype}")
            hold(name == "f" or bool((value >= 0).all()), f"{name} is {float(value.min()):.3g}; it must be at least 0")


def _values(divergence: Divergence, r: Tensor) -> dict[str, Tensor]:
    return {"f": divergence.f(r), "h": divergence.h(r), "h_from_log": divergence.h_from_log(r.log())}


def _second_derivative(divergence: Divergence) -> tuple[Tensor, Tensor]:
    """61 ratios from 1e-3 to 1e3, and f'' there."""
    r = torch.logspace(-3, 3, 61, requires_grad=True)
    (first,) = torch.autograd.grad(divergence.f(r).sum(), r, create_graph=True)
    if not first.requires_grad:  # f is linear
        return r.detach(), torch.zeros_like(first)
    (second,) = torch.autograd.grad(first.sum(), r)
    return r.detach(), second


LAWS = (
    shape_and_type,
    zero_at_one,
    convex,
    h_is_r_squared_times_the_second_derivative,
    h_from_log_is_h,
    constant_means_constant,
    finite,
)
