"""Equal calls share one evaluation, and different calls never share a result."""

from __future__ import annotations

import copy
import gc
import weakref

import torch

from scoredistill.cache import LastCallCache


class Counted:
    """A function that counts its evaluations."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        return self.calls


def test_the_same_objects_are_evaluated_once() -> None:
    latest, compute, x = LastCallCache[int](), Counted(), torch.zeros(3)
    assert [latest.of(0, [x], compute) for _ in range(3)] == [1, 1, 1]


def test_equal_but_different_objects_are_evaluated_again() -> None:
    latest, compute, x = LastCallCache[int](), Counted(), torch.zeros(3)
    assert [latest.of(0, [x], compute), latest.of(0, [x.clone()], compute)] == [1, 2]


def test_a_tensor_changed_in_place_is_evaluated_again() -> None:
    latest, compute, x = LastCallCache[int](), Counted(), torch.zeros(3)
    latest.of(0, [x], compute)
    x += 1
    assert latest.of(0, [x], compute) == 2


def test_other_settings_are_evaluated_again() -> None:
    latest, compute, x = LastCallCache[int](), Counted(), torch.zeros(3)
    assert [latest.of(setting, [x], compute) for setting in (0, 1, 0)] == [1, 2, 3]


def test_a_result_without_a_graph_is_not_reused_where_one_is_needed() -> None:
    latest, x = LastCallCache[torch.Tensor](), torch.ones(3, requires_grad=True)
    with torch.no_grad():
        latest.of(0, [x], lambda: 2 * x)
    assert latest.of(0, [x], lambda: 2 * x).requires_grad


def test_arguments_are_not_kept_alive() -> None:
    latest, x = LastCallCache[int](), torch.zeros(3)
    latest.of(0, [x], Counted())
    gone = weakref.ref(x)
    del x
    gc.collect()
    assert gone() is None


def test_a_copy_starts_empty() -> None:
    latest, compute, x = LastCallCache[int](), Counted(), torch.zeros(3)
    latest.of(0, [x], compute)
    assert copy.deepcopy(latest).of(0, [x], compute) == 2
