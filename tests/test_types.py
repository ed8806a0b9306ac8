"""Conditions, batches and samples: rows, and how they are selected, joined and split."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scoredistill.diffusion import CosineSchedule, FlowSchedule
from scoredistill.rendering.camera import Camera
from scoredistill.types import Batch, Condition, Diffused, Sample, right_pad_dims


def camera(n: int) -> Camera:
    at = torch.arange(n) * 30.0
    return Camera.orbit(at, at * 0, at * 0 + 2, at * 0 + 40)


def full(n: int) -> Condition:
    texts = [f"text {i}" for i in range(n)]
    return Condition(texts, "bad", torch.arange(n), camera(n), torch.rand(n, 3), torch.arange(2.0 * n).view(n, 1, 2))


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        (Condition(), None),
        (Condition("a mug", "red"), None),
        (Condition(["a", "b", "c"]), 3),
        (Condition("a", ["b", "c"]), 2),
        (Condition(label=torch.zeros(4)), 4),
        (Condition("a", camera=camera(5)), 5),
        (Condition(background=torch.zeros(6, 3)), 6),
        (Condition(embeddings=torch.zeros(7, 1, 2)), 7),
    ],
)
def test_rows_are_counted_in_any_field(condition: Condition, rows: int | None) -> None:
    assert condition.rows == rows


def test_rows_are_selected_in_every_field() -> None:
    condition, index = full(4), torch.tensor([3, 1, 1])
    picked = condition[index]
    assert picked.prompt == ("text 3", "text 1", "text 1")
    assert picked.negative_prompt == "bad"
    assert picked.label.tolist() == [3, 1, 1]
    assert torch.equal(picked.camera.pose, condition.camera.pose[index])
    assert torch.equal(picked.background, condition.background[index])
    assert torch.equal(picked.embeddings, condition.embeddings[index])


def test_joining_undoes_selecting() -> None:
    condition = full(5)
    joined = Condition.cat([condition[torch.arange(2)], condition[torch.arange(2, 5)]])
    assert joined.prompt == tuple(condition.prompt)
    assert joined.negative_prompt == "bad"
    for name in ("label", "background", "embeddings"):
        assert torch.equal(getattr(joined, name), getattr(condition, name))
    assert torch.equal(joined.camera.pose, condition.camera.pose)
    assert Condition.cat([condition, None]) is None
    assert Condition.cat([Condition("a mug"), Condition("a mug")]) == Condition("a mug")


def test_the_negative_branch_keeps_camera_and_background() -> None:
    condition = full(2)
    other = condition.negative()
    assert (other.prompt, other.negative_prompt, other.label, other.embeddings) == ("bad", None, None, None)
    assert other.camera is condition.camera
    assert other.background is condition.background
    assert condition.with_prompt("new").prompt == "new"
    assert condition.with_prompt("new").label is condition.label


def test_moving_keeps_other_fields() -> None:
    moved = full(2).to("cpu")
    assert moved.prompt == ["text 0", "text 1"]
    assert torch.equal(moved.label, torch.arange(2))
    batch = Batch(Condition("a mug"), 3, torch.zeros(3, 2)).to("cpu")
    assert (batch.condition, batch.size, batch.data.shape) == (Condition("a mug"), 3, (3, 2))
    assert Batch().to("cpu") == Batch()


@given(rows=st.integers(1, 20), parts=st.integers(1, 20))
def test_a_batch_splits_into_consecutive_nearly_equal_parts(rows: int, parts: int) -> None:
    batch = Batch(Condition("a mug", label=torch.arange(rows)), data=torch.arange(rows) + 0.5)
    if rows < parts:
        with pytest.raises(ValueError, match=f"a batch of {rows} rows cannot be split into {parts}"):
            batch.split(parts)
        return
    split = batch.split(parts)
    sizes = [len(part.condition.label) for part in split]
    assert len(split) == parts
    assert max(sizes) - min(sizes) <= 1
    assert torch.equal(torch.cat([part.condition.label for part in split]), torch.arange(rows))
    assert torch.equal(torch.cat([part.data for part in split]), batch.data)
    assert {part.condition.prompt for part in split} == {"a mug"}


def test_a_batch_of_a_size_splits_by_it() -> None:
    assert [part.size for part in Batch(size=5).split(2)] == [3, 2]
    assert [part.size for part in Batch(Condition("a mug"), 4).split(2)] == [2, 2]
    with pytest.raises(ValueError, match="a batch of no rows cannot be split into 2"):
        Batch(Condition("a mug")).split(2)


def test_joined_samples_of_cameras_stay_apart_as_views() -> None:
    seen = Condition(camera=camera(4))
    first = Sample(torch.zeros(4, 2), seen, particle=torch.tensor([0, 1, 0, 1]), view_index=torch.tensor([0, 0, 1, 1]))
    second = Sample(torch.ones(2, 2), seen[torch.tensor([0, 0])], particle=torch.tensor([0, 1]))
    joined = Sample.cat([first, second, first])
    assert joined.view_index.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert joined.particle.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    assert joined.x.sum() == 4
    assert Sample.cat([first, Sample(torch.ones(1, 2), seen[torch.tensor([0])])]).particle is None


def test_joined_samples_without_cameras_are_of_one_view_or_of_their_labels() -> None:
    plain, label = Sample(torch.zeros(2, 2)), torch.tensor([3, 1])
    labeled = Sample(
        torch.zeros(2, 2), Condition(label=label), population=torch.ones(2, 2), population_view_index=label
    )
    assert Sample.cat([plain, plain]).views is None
    joined = Sample.cat([labeled, labeled])
    assert joined.views.tolist() == [3, 1, 3, 1]
    assert joined.population_view_index.tolist() == [3, 1, 3, 1]


def test_noise_does_not_depend_on_how_a_batch_is_split() -> None:
    batch = Batch(Condition(label=torch.arange(7)), data=torch.randn(7, 2), data_label=torch.arange(7))
    whole = batch.noise((3,), torch.Generator().manual_seed(1))
    parts = [part.noise((3,), torch.Generator().manual_seed(1)) for part in batch.split(3)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.cat([part.data_label for part in batch.split(3)]).tolist() == list(range(7))


def test_equal_views_are_equal_rows() -> None:
    rows = torch.tensor([0, 2, 0, 1])
    views = Condition(camera=camera(3)[rows]).views
    assert ((views[:, None] == views) == (rows[:, None] == rows)).all()
    both = Condition(camera=camera(3)[rows], label=torch.tensor([0, 0, 1, 0])).views
    assert len(both.unique()) == 4
    assert Condition("a mug").views is None


@pytest.mark.parametrize("schedule", [CosineSchedule(), FlowSchedule()])
def test_diffusing_adds_noise_and_cuts_the_graph(schedule) -> None:  # type: ignore[no-untyped-def]
    x, t, epsilon = torch.randn(3, 2, 2, requires_grad=True), torch.rand(3), torch.randn(3, 2, 2)
    condition = Condition(label=torch.arange(3))
    diffused = Diffused.diffuse(Sample(x, condition), t, epsilon, schedule)
    for i in range(3):
        expected = schedule.alpha(t[i]) * x[i] + schedule.sigma(t[i]) * epsilon[i]
        torch.testing.assert_close(diffused.x_t[i], expected.detach())
    assert not diffused.x_t.requires_grad
    assert diffused.sample.x is x
    assert diffused.epsilon is epsilon
    assert diffused.condition is condition


def test_padding_multiplies_sample_by_sample() -> None:
    like = torch.zeros(2, 3, 4, 5)
    assert right_pad_dims(torch.ones(2), like).shape == (2, 1, 1, 1)
    assert right_pad_dims(torch.ones(2), torch.zeros(2)).shape == (2,)
