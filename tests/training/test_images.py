"""Real samples and labels of each tick."""

from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from data.test_base import Bare, Ramp, mixture

from scoredistill.data import DigitImages, GalleryImages, LatentCache, TeacherSamples
from scoredistill.training.conditions import Labels
from scoredistill.training.images import Images
from scoredistill.types import Batch, Condition


def on_rank(data: Images | Labels, rank: int) -> Images | Labels:
    data.trainer = SimpleNamespace(global_rank=rank)
    return data


def tensors(batch: Batch) -> list[torch.Tensor | None]:
    return [batch.data, batch.data_label, None if batch.condition is None else batch.condition.label]


def same(a: Batch, b: Batch) -> list[bool]:
    return [torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True) if x is not None]


@pytest.mark.parametrize("labels", ["data", "uniform", None])
@pytest.mark.parametrize("source", [DigitImages(), TeacherSamples(mixture())], ids=["digits", "points"])
def test_a_batch_is_a_function_of_seed_tick_and_rank(source, labels) -> None:
    def data(seed: int = 3) -> Images:
        return Images(source, 32, labels, flip=source.flippable, seed=seed)

    torch.manual_seed(9)
    state = torch.get_rng_state()
    batch = data().batch_at(17)
    assert all(same(batch, data().batch_at(17)))
    assert all(same(batch, on_rank(data(), 0).batch_at(17)))
    for other in (data().batch_at(18), data(4).batch_at(17), on_rank(data(), 1).batch_at(17)):
        assert not any(same(batch, other))
    assert torch.equal(torch.get_rng_state(), state)


def at_tick(tick: int) -> Images:
    data = Images(DigitImages(), 8, "data")
    data.trainer = SimpleNamespace(global_rank=0, lightning_module=SimpleNamespace(ticks=torch.tensor(tick)))
    return data


def test_a_resumed_stream_continues_with_the_same_batches() -> None:
    straight = list(islice(at_tick(0).train_dataloader(), 6))
    resumed = list(islice(at_tick(4).train_dataloader(), 2))
    assert all(all(same(a, b)) for a, b in zip(straight[4:], resumed, strict=True))
    assert all(same(next(iter(Images(DigitImages(), 8, "data").train_dataloader())), straight[0]))


def test_labels_of_the_data_are_those_of_its_rows() -> None:
    digits, known = DigitImages().all(), DigitImages()
    batch = Images(known, 50, "data").batch_at(2)
    assert (batch.size, batch.data.shape, batch.condition.rows) == (50, (50, 1, 8, 8), 50)
    assert torch.equal(batch.condition.label, batch.data_label)
    row = torch.cdist(batch.data.flatten(1), digits[0].flatten(1)).argmin(1)
    assert torch.equal(batch.data, digits[0][row])
    assert torch.equal(batch.data_label, digits[1][row])


def test_captions_of_the_data_are_those_of_its_rows() -> None:
    source = GalleryImages(["a red mug", "a tree, side view"], resolution=8, count=8)
    batch = Images(source, batch_size=6, condition_on="text").batch_at(3)
    plain = Images(source, batch_size=6, condition_on="data").batch_at(3)
    assert torch.equal(batch.data, plain.data)
    assert batch.condition.prompt == tuple(source.prompts[label] for label in plain.data_label.tolist())
    assert (batch.condition.label, batch.data_label) == (None, None)  # the texts say what the pictures are
    assert len(set(batch.condition.prompt)) == 2


class Captioned(Ramp):
    """A source with a different caption for each picture, and classes."""

    captions = tuple(f"number {i}" for i in range(10))


@pytest.mark.parametrize("cached", [False, True])
def test_each_picture_has_its_own_caption(cached, tmp_path) -> None:
    source = LatentCache(Captioned(), torch.neg, tmp_path, name="minus") if cached else Captioned()
    data = Images(source, 20, "text", evaluation_size=30)
    for batch in [data.batch_at(1), data.batch_at(2), *data.evaluation_batches()]:
        number = (batch.data.abs()[:, 0, 0, 0] * 10).round().long()
        assert batch.condition.prompt == tuple(f"number {i}" for i in number.tolist())
        assert batch.data_label is None
    assert data.batch_at(1).condition.prompt != data.batch_at(2).condition.prompt
    assert data.batch_at(1).condition.prompt == Images(source, 20, "text").batch_at(1).condition.prompt
    assert Images(source, 20, "data").batch_at(1).data_label is not None


def test_uniform_labels_are_independent_of_the_data() -> None:
    data = Images(Ramp(), 20, "uniform")
    batches = [data.batch_at(tick) for tick in range(400)]
    asked = torch.cat([batch.condition.label for batch in batches])
    real = torch.cat([batch.data_label for batch in batches])
    n, joint = len(asked), torch.bincount(3 * asked + real, minlength=9).view(3, 3)
    expected = torch.tensor([0.4, 0.3, 0.3]).expand(3, 3) / 3  # of ten pictures four are of class 0
    assert ((joint / n - expected).abs() < 4 * (expected / n).sqrt()).all()


def test_without_labels_there_is_no_condition() -> None:
    batch = Images(Bare(), 3).batch_at(0)
    assert (batch.condition, batch.size, batch.data_label) == (None, 3, None)
    assert Images(Ramp(), 3).batch_at(0).data_label is not None


def test_half_of_the_pictures_are_mirrored_and_nothing_else_changes() -> None:
    class Slope(Bare):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, None]:
            return torch.tensor([[[0.0, 1.0]]]) + index, None

    plain, mirrored = (Images(Slope(), 2000, flip=flip).batch_at(0).data for flip in (False, True))
    turned = (mirrored != plain).flatten(1).any(1)
    assert torch.equal(mirrored, torch.where(turned[:, None, None, None], plain.flip(-1), plain))
    assert float(turned.float().mean()) == pytest.approx(0.5, abs=3 * 0.5 / 2000**0.5)
    first = Images(Slope(), 5, flip=True).evaluation_batches()[0].data
    assert (first[..., 1] > first[..., 0]).all()


def test_evaluation_is_cut_into_batches_alike_on_every_process() -> None:
    data = Images(DigitImages(), 32, "uniform", evaluation_size=70)
    batches = list(data.val_dataloader())
    assert [batch.size for batch in batches] == [len(batch.data) for batch in batches] == [32, 32, 6]
    others = on_rank(Images(DigitImages(), 32, "uniform", evaluation_size=70), 1).evaluation_batches()
    assert all(all(same(a, b)) for a, b in zip(batches, others, strict=True))
    assert not torch.equal(batches[0].data, batches[1].data)
    assert not torch.equal(batches[0].data, data.batch_at(0).data)


def test_the_reference_is_all_or_a_fixed_choice_without_repeats() -> None:
    every, labels = Images(Ramp(10), 4, reference_size=None).reference()
    assert torch.equal(every, Ramp(10).all()[0])
    assert torch.equal(labels, Ramp(10).all()[1])
    some, own = Images(Ramp(10), 4, reference_size=6).reference()
    again = on_rank(Images(Ramp(10), 4, reference_size=6), 2).reference()[0]
    number = (some[:, 0, 0, 0] * 10).round().long()
    assert (len(number.unique()), torch.equal(own, number % 3), torch.equal(some, again)) == (6, True, True)
    endless = Images(TeacherSamples(mixture()), 4, reference_size=9)
    x, label = endless.reference()
    assert (x.shape, label.shape, torch.equal(x, endless.reference()[0])) == ((9, 2), (9,), True)


def test_a_source_prepares_before_the_run(tmp_path) -> None:
    cache = LatentCache(Ramp(), torch.neg, tmp_path, name="minus")
    data = Images(cache, 4)
    assert list(tmp_path.iterdir()) == []
    data.prepare_data()
    assert len(list(tmp_path.iterdir())) == 1
    assert data.batch_at(0).data.shape == (4, 1, 2, 2)


def test_unsupported_conditions_of_a_source_are_errors(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"data\.condition_on: Bare has no labels; leave it null"):
        Images(Bare(), 4, "data")
    with pytest.raises(ValueError, match=r"data\.condition_on: DigitImages has no captions"):
        Images(DigitImages(), 4, "text")
    with pytest.raises(ValueError, match=r"data\.flip: a sample of TeacherSamples cannot be mirrored"):
        Images(TeacherSamples(mixture()), 4, flip=True)
    with pytest.raises(ValueError, match=r"data\.reference_size: TeacherSamples has no end"):
        Images(TeacherSamples(mixture()), 4, reference_size=None)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Images(Ramp(), 0)
    with pytest.raises(ValueError, match="classes must be at least 1, got 0"):
        Labels(0, 4)


def test_labels_alone_are_uniform_and_differ_by_tick_and_rank() -> None:
    batch = Labels(10, 64, seed=3).batch_at(5)
    assert (batch.data, batch.size, batch.condition.rows) == (None, 64, 64)
    assert torch.equal(batch.condition.label, Labels(10, 64, seed=3).batch_at(5).condition.label)
    assert torch.equal(batch.condition.label, Images(DigitImages(), 64, "uniform", seed=3).batch_at(5).condition.label)
    for other in (Labels(10, 64, seed=3).batch_at(6), on_rank(Labels(10, 64, seed=3), 1).batch_at(5)):
        assert not torch.equal(batch.condition.label, other.condition.label)
    many = torch.cat([Labels(10, 64).batch_at(tick).condition.label for tick in range(200)])
    counts, n = torch.bincount(many, minlength=10), len(many)
    assert ((counts - n / 10).abs() < 4 * (n * 0.09) ** 0.5).all()
    evaluated = Labels(3, 4, evaluation_size=7).evaluation_batches()
    assert [part.condition.label.tolist() for part in evaluated] == [[0, 1, 2, 0], [1, 2, 0]]
    assert [part.size for part in evaluated] == [4, 3]


def test_a_batch_keeps_the_labels_of_its_data_together_with_it() -> None:
    batch = Batch(Condition(label=torch.arange(5)), 5, torch.arange(5) + 0.5, torch.arange(5) + 10)
    parts = batch.split(2)
    assert [part.data_label.tolist() for part in parts] == [[10, 11, 12], [13, 14]]
    assert all(torch.equal(part.data + 9.5, part.data_label.double()) for part in parts)
    assert torch.equal(batch.to("cpu").data_label, batch.data_label)
