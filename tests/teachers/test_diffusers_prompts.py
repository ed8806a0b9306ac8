"""PromptEmbedder: each text is encoded once, cached in memory and on disk, and has the view words of its camera."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scoredistill.diffusion import ViewPerpNeg, ViewPrompts
from scoredistill.rendering.camera import Camera
from scoredistill.teachers.diffusers import prompts as prompts_module
from scoredistill.teachers.diffusers.prompts import EmbeddingCache, PromptEmbedder, PromptSettings, Reading, user_folder
from scoredistill.types import Condition, TextEmbeddings

MEMORY = PromptSettings(cache=None)


class Encoder:
    """A text encoder that records its calls; an embedding is a function of the first 12 letters of a text."""

    def __init__(self, key: str = "model@revision") -> None:
        self.key = key
        self.read: list[list[str]] = []
        self.released = 0
        self.grad: list[bool] = []

    def encode(self, texts: Sequence[str]) -> TextEmbeddings:
        self.read.append(list(texts))
        self.grad.append(torch.is_grad_enabled())
        rows = [torch.randn(4, 3, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in texts]
        mask = torch.tensor([[i < 1 + len(text.split()) for i in range(4)] for text in texts])
        tokens = torch.stack(rows).float()
        return TextEmbeddings(tokens, tokens.sum(1), mask.long())

    def release(self) -> None:
        self.released += 1

    def truncations(self, text: str) -> list[tuple[str, str]]:
        return [(text[:12], text[12:])] * 2 if len(text) > 12 else []


def orbit(*azimuth: float) -> Camera:
    a = torch.tensor(azimuth)
    return Camera.orbit(a, a * 0 + 15, a * 0 + 2.6, a * 0 + 40)


def same(ours: TextEmbeddings | Tensor | None, theirs: TextEmbeddings) -> bool:
    assert isinstance(ours, TextEmbeddings)
    return all(torch.equal(getattr(ours, name), getattr(theirs, name)) for name in ("tokens", "pooled", "mask"))


def told(condition: Condition | None) -> TextEmbeddings:
    assert condition is not None
    assert isinstance(condition.embeddings, TextEmbeddings)
    return condition.embeddings


def short() -> ViewPrompts:
    return ViewPrompts(" front", " side", " back", " above")


def test_each_text_is_encoded_once_and_a_call_is_one_batch() -> None:
    encoder = Encoder()
    prompts = PromptEmbedder(encoder, MEMORY)
    rows = prompts.texts(["a", "b", "a", "c"])
    assert same(rows, Encoder().encode(["a", "b", "a", "c"]))
    assert same(prompts.texts(["c", "d", "a"]), Encoder().encode(["c", "d", "a"]))
    assert (encoder.read, encoder.released, encoder.grad) == ([["a", "b", "c"], ["d"]], 2, [False, False])


def test_encoders_are_released_if_they_fail() -> None:
    encoder = Encoder()
    encoder.encode = lambda texts: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(ZeroDivisionError):
        PromptEmbedder(encoder, MEMORY).texts(["a"])
    assert encoder.released == 1


def test_a_hit_on_disk_needs_no_encoder_at_all(tmp_path: Path) -> None:
    settings = PromptSettings(cache=str(tmp_path / "cache"))
    PromptEmbedder(Encoder(), settings).texts(["a", "b"])
    encoder = Encoder()
    assert same(PromptEmbedder(encoder, settings).texts(["b", "a"]), Encoder().encode(["b", "a"]))
    assert (encoder.read, encoder.released) == ([], 0)
    PromptEmbedder(encoder, settings).texts(["b", "c"])
    assert encoder.read == [["c"]]


def test_the_file_name_depends_on_text_and_key_and_on_nothing_else(tmp_path: Path) -> None:
    cache = EmbeddingCache(str(tmp_path), "key")
    others = [
        cache.path("a mugs"), EmbeddingCache(str(tmp_path), "key2").path("a mug"),
        EmbeddingCache(str(tmp_path), "keya").path(" mug"), cache.path("A mug"),
    ]  # fmt: skip
    assert len({cache.path("a mug"), *others}) == 5
    assert cache.path("a mug").name == EmbeddingCache(str(tmp_path / "other"), "key").path("a mug").name
    assert cache.path("a mug").name == "cc0785005a34de4d4ff57cfc46e10cb22c95a78f550708f6e8c8f25090adc8dc.safetensors"


def test_another_models_embeddings_are_not_used(tmp_path: Path) -> None:
    settings = PromptSettings(cache=str(tmp_path))
    PromptEmbedder(Encoder("one"), settings).texts(["a"])
    encoder = Encoder("two")
    PromptEmbedder(encoder, settings).texts(["a"])
    assert encoder.read == [["a"]]


@pytest.mark.parametrize("damage", ["empty", "half", "noise", "other text", "foreign"])
def test_damaged_and_foreign_files_are_rewritten(tmp_path: Path, damage: str) -> None:
    from safetensors.torch import save

    settings = PromptSettings(cache=str(tmp_path))
    PromptEmbedder(Encoder(), settings).texts(["a", "b"])
    cache = EmbeddingCache(str(tmp_path), Encoder().key)
    path, whole = cache.path("a"), cache.path("a").read_bytes()
    contents = {
        "empty": b"", "half": whole[: len(whole) // 2], "noise": b"x" * len(whole),
        "other text": cache.path("b").read_bytes(), "foreign": save({"weight": torch.zeros(2)}),
    }  # fmt: skip
    path.write_bytes(contents[damage])
    encoder = Encoder()
    with pytest.warns(UserWarning, match="which is not the embedding of 'a'"):
        found = PromptEmbedder(encoder, settings).texts(["a"])
    assert same(found, Encoder().encode(["a"]))
    assert encoder.read == [["a"]]
    assert path.read_bytes() == whole


WRITER = """
import sys, torch
from scoredistill.teachers.diffusers.prompts import EmbeddingCache, Reading
from scoredistill.types import TextEmbeddings
cache = EmbeddingCache(sys.argv[1], "key")
tokens = torch.full((1, 64, 64), float(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(60):
    cache.write("a", Reading(TextEmbeddings(tokens)))
    found = cache.read("a")
    assert found is not None and len(found.embeddings.tokens.unique()) == 1
"""


@pytest.mark.slow
def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    jobs = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WRITER, str(tmp_path), value],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for value in ("1", "2")
    ]  # fmt: skip
    for job in jobs:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
    for job in jobs:
        assert job.stdin is not None
        job.stdin.write("go\n")
        job.stdin.flush()
    assert [job.communicate(timeout=120)[1] for job in jobs] == ["", ""]
    assert [job.returncode for job in jobs] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == [EmbeddingCache(str(tmp_path), "key").path("a").name]


def test_a_folder_that_cannot_be_written_is_a_warning_and_is_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = PromptSettings(cache=str(tmp_path))
    PromptEmbedder(Encoder(), settings).texts(["a"])

    def refuse(path: Path, writer: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(prompts_module, "write_atomically", refuse)  # the superuser may write into any folder
    encoder = Encoder()
    prompts = PromptEmbedder(encoder, settings)
    with pytest.warns(UserWarning, match=r"prompts.cache: cannot write to .* set another folder, or null"):
        prompts.texts(["a", "b", "c"])
    prompts.texts(["d"])  # it has been said
    assert encoder.read == [["b", "c"], ["d"]]


def test_a_cache_that_is_no_folder_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    prompts = PromptEmbedder(Encoder(), PromptSettings(cache=str(tmp_path / "file")))
    with pytest.warns(UserWarning, match="prompts.cache: cannot write") as caught:
        assert same(prompts.texts(["a", "b"]), Encoder().encode(["a", "b"]))
    assert len(caught) == 1


def test_the_default_folder_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    PromptEmbedder(Encoder()).texts(["a"])
    assert [path.parent for path in tmp_path.rglob("*.safetensors")] == [tmp_path / "scoredistill" / "prompts"]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_folder() == tmp_path / ".cache" / "scoredistill" / "prompts"


def test_no_cache_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    PromptEmbedder(Encoder(), MEMORY).texts(["a"])
    assert not list(tmp_path.iterdir())


def test_parts_that_an_encoder_lacks_are_none(tmp_path: Path) -> None:
    cache = EmbeddingCache(str(tmp_path), "key")
    tokens = torch.randn(1, 2, 3, dtype=torch.bfloat16)
    cache.write("a", Reading(TextEmbeddings(tokens), (("kept", "cut"),)))
    found = cache.read("a")
    assert found is not None
    assert torch.equal(found.embeddings.tokens, tokens)
    assert (found.embeddings.pooled, found.embeddings.mask, found.truncated) == (None, None, (("kept", "cut"),))
    assert cache.read("b") is None


def test_one_text_is_expanded_and_not_copied() -> None:
    rows = told(PromptEmbedder(Encoder(), MEMORY).encode_prompt(Condition("a mug"), 5))
    assert rows.tokens.shape == (5, 4, 3)
    assert rows.tokens.stride(0) == rows.pooled.stride(0) == rows.mask.stride(0) == 0  # type: ignore[union-attr]
    assert same(rows, Encoder().encode(["a mug"] * 5))


def test_one_reading_serves_many_rows_and_the_other_branch() -> None:
    encoder = Encoder()
    prompts = PromptEmbedder(encoder, MEMORY)
    asked = prompts.encode_prompt(Condition(["a", "b", "a"], "blurry"), None)
    assert same(told(asked), Encoder().encode(["a", "b", "a"]))
    assert asked is not None
    assert same(told(prompts.literal(asked.negative(), 3)), Encoder().encode(["blurry"] * 3))
    assert encoder.read == [["a", "b", "blurry"]]


def test_no_prompt_is_the_empty_text() -> None:
    encoder = Encoder()
    prompts = PromptEmbedder(encoder, MEMORY)
    empty = Encoder().encode([""] * 2)
    assert same(told(prompts.encode_prompt(Condition(label=torch.zeros(2)), None)), empty)
    assert same(told(prompts.literal(None, 2)), empty)
    assert same(told(prompts.literal(Condition(), 2)), empty)
    assert encoder.read == [[""]]


def test_conditions_with_embeddings_or_without_rows_are_unchanged() -> None:
    encoder = Encoder()
    prompts = PromptEmbedder(encoder, PromptSettings(cache=None, negative="blurry"))
    given = Condition("a mug", embeddings=torch.zeros(3, 1, 2))
    assert prompts.encode_prompt(given, 3) is given
    assert prompts.literal(given, 3) is given
    unknown = Condition("a mug")
    assert prompts.encode_prompt(unknown, None) is unknown
    assert prompts.encode_prompt(None, 3) is None
    assert encoder.read == []


def test_prompts_are_one_text_or_one_per_row() -> None:
    prompts = PromptEmbedder(Encoder(), MEMORY)
    with pytest.raises(ValueError, match="there are 2 prompts for 3 rows: use one prompt, or one per row"):
        prompts.encode_prompt(Condition(["a", "b"], camera=orbit(0.0, 0.0, 0.0)), None)


def test_the_settings_negative_prompt_is_the_default() -> None:
    prompts = PromptEmbedder(Encoder(), PromptSettings(cache=None, negative="blurry"))
    for given, expected in ((None, "blurry"), ("red", "red"), ("", "")):
        asked = prompts.encode_prompt(Condition("a mug", given), 2)
        assert asked is not None
        assert asked.negative().prompt == expected


def test_truncated_prompts_are_shown_once_also_when_they_come_from_disk(tmp_path: Path) -> None:
    settings, text = PromptSettings(cache=str(tmp_path)), "a mug that is far too long"
    for _ in range(2):
        prompts = PromptEmbedder(Encoder(), settings)
        with pytest.warns(
            UserWarning, match="'a mug that is far too long' is too long .* 'a mug that i' and cuts"
        ) as all_:
            prompts.encode_prompt(Condition(text), 2)
        assert len(all_) == 1
        prompts.encode_prompt(Condition(text), 2)


def test_each_row_is_worded_by_its_camera() -> None:
    encoder = Encoder()
    prompts = PromptEmbedder(encoder, PromptSettings(short(), "bad", cache=None))
    asked = prompts.encode_prompt(Condition("mug", camera=orbit(0.0, 90.0, 180.0, 270.0)), None)
    assert same(told(asked), Encoder().encode(["mug front", "mug side", "mug back", "mug side"]))
    prompts.encode_prompt(Condition("mug", camera=orbit(180.0)), None)
    assert encoder.read == [["mug front", "mug side", "mug back", "mug above", "bad"]]
    several = prompts.encode_prompt(Condition(["cat", "", "dog"], camera=orbit(0.0, 90.0, 180.0)), None)
    assert same(told(several), Encoder().encode(["cat front", "", "dog back"]))
    assert same(told(prompts.encode_prompt(Condition("mug"), 2)), Encoder().encode(["mug"] * 2))  # no camera, no view


def test_prompts_of_other_branches_are_encoded_literally() -> None:
    prompts = PromptEmbedder(Encoder(), PromptSettings(short(), cache=None))
    condition = Condition("mug", "blurry", camera=orbit(0.0, 90.0))
    asked = prompts.encode_prompt(condition, None)
    assert asked is not None
    assert same(told(prompts.literal(asked.negative(), 2)), Encoder().encode(["blurry"] * 2))
    assert same(told(prompts.literal(condition, 2)), Encoder().encode(["mug"] * 2))


def test_interpolated_views_are_exact_at_the_views_and_continuous() -> None:
    views = ViewPrompts(" front", " side", " back", " above", interpolate=True)
    prompts = PromptEmbedder(Encoder(), PromptSettings(views, cache=None))
    azimuth = torch.linspace(0, 360, 721)
    rows = told(prompts.encode_prompt(Condition("mug", camera=orbit(*azimuth.tolist())), None))
    whole = Encoder().encode([f"mug {view}" for view in ("front", "side", "back", "side", "front")])
    torch.testing.assert_close(rows.tokens[::180], whole.tokens)
    torch.testing.assert_close(rows.tokens[90], (whole.tokens[0] + whole.tokens[1]) / 2)
    torch.testing.assert_close(rows.tokens, rows.tokens.flip(0))  # both sides alike
    far = max((whole.tokens[i] - whole.tokens[1]).abs().max().item() for i in (0, 2))
    assert rows.tokens.diff(dim=0).abs().max() < far * 0.5 / 90 * 1.01


def test_embeddings_come_in_the_encoders_type_and_without_graph() -> None:
    prompts = PromptEmbedder(Encoder(), MEMORY)
    rows = told(prompts.encode_prompt(Condition("a mug"), 2, device="cpu"))
    assert (rows.tokens.dtype, rows.tokens.requires_grad) == (torch.float32, False)
    assert rows.mask is not None
    assert rows.mask.dtype == torch.int64


def test_view_guidance_uses_cached_embeddings() -> None:
    encoder = Encoder()
    prompts = PromptEmbedder(encoder, PromptSettings(short(), cache=None))
    asked = prompts.encode_prompt(Condition("mug", camera=orbit(0.0, 90.0)), None)
    assert asked is not None
    words = ViewPerpNeg(7.5, short()).views.texts("mug")
    prompts.encode_prompt(Condition([str(text) for text in words]), 4)
    assert len(encoder.read) == 1
