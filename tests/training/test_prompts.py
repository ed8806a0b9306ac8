"""Prompts of a file, at each tick."""

from types import SimpleNamespace

import pytest
import torch

from scoredistill.training import PromptFile


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a red mug\n\n  a häppy tree \na lamp", encoding="utf-8")
    return path


def on_rank(data: PromptFile, rank: int) -> PromptFile:
    data.trainer = SimpleNamespace(global_rank=rank)
    return data


def test_a_batch_is_a_function_of_seed_tick_and_rank(file) -> None:
    state = torch.get_rng_state()
    batch = PromptFile(file, 16, seed=3).batch_at(7)
    assert (batch.size, batch.rows, batch.data, batch.condition.label) == (16, 16, None, None)
    assert batch.condition.prompt == on_rank(PromptFile(file, 16, seed=3), 0).batch_at(7).condition.prompt
    others = [PromptFile(file, 16, seed=3).batch_at(8), PromptFile(file, 16).batch_at(7)]
    for other in [*others, on_rank(PromptFile(file, 16, seed=3), 1).batch_at(7)]:
        assert other.condition.prompt != batch.condition.prompt
    assert torch.equal(torch.get_rng_state(), state)


def test_every_line_is_drawn_equally_often(file) -> None:
    data = PromptFile(file, 30)
    texts = [text for tick in range(100) for text in data.batch_at(tick).condition.prompt]
    for text in ("a red mug", "a häppy tree", "a lamp"):
        assert abs(texts.count(text) - 1000) < 4 * (3000 * 2 / 9) ** 0.5


def test_evaluation_takes_the_prompts_in_turn(file) -> None:
    data = PromptFile(file, 3, negative_prompt="blurry", evaluation_size=4)
    parts = data.evaluation_batches()
    asked = ("a red mug", "a häppy tree", "a lamp")
    assert [part.condition.prompt for part in parts] == [asked, asked[:1]]
    assert [part.size for part in parts] == [3, 1]
    assert {part.condition.negative_prompt for part in parts} == {"blurry"}


def test_invalid_prompt_files_are_errors(tmp_path, file) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.file: there is no .*nowhere; give a text file"):
        PromptFile(tmp_path / "nowhere", 4)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        PromptFile(file, 0)
    for content, message in ((b"\n \n", "has no prompt; write one per line"), (b"\xff", "is not UTF-8")):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            PromptFile(file, 4)
