"""Byte order marks, accented letters in both Unicode normal forms, and samples without a label."""

import json
from pathlib import Path
from unicodedata import normalize

import pytest
from data.pictures_on_disk import content, picture, save, write_shard

from scoredistill.data import HuggingFaceImages, ImageFolder, WebDatasetShards
from scoredistill.recipe_library import read, recipes
from scoredistill.training import PromptFile

MARK = b"\xef\xbb\xbf"
NAMES = [normalize("NFC", "café.png"), normalize("NFD", "café.png")]


def test_a_byte_order_mark_is_removed_from_a_caption_file(tmp_path):
    save(tmp_path / "a/1.png", 10)
    (tmp_path / "a/1.txt").write_bytes(MARK + b"a red mug")
    assert ImageFolder(tmp_path, 8).captions == ("a red mug",)


def test_a_byte_order_mark_is_removed_from_the_metadata(tmp_path):
    save(tmp_path / "1.png", 10)
    (tmp_path / "metadata.jsonl").write_bytes(MARK + b'{"file_name": "1.png", "text": "a red mug"}\n')
    assert ImageFolder(tmp_path, 8).captions == ("a red mug",)


@pytest.mark.parametrize("ending", ["txt", "json"])
def test_a_byte_order_mark_is_removed_from_a_shard(tmp_path, ending):
    caption = {"txt": MARK + b"a red mug", "json": MARK + json.dumps({"text": "a red mug"}).encode()}[ending]
    members = {f"1.{ending}": caption, "1.cls": MARK + b"3", "1.png": content(picture(10))}
    write_shard(tmp_path / "a.tar", members)
    source = WebDatasetShards(str(tmp_path / "a.tar"), 8)
    assert (source.captions, source[0][1]) == (("a red mug",), 3)


def test_a_byte_order_mark_is_removed_from_a_prompt(tmp_path):
    (tmp_path / "prompts.txt").write_bytes(MARK + b"a red mug\na chair\n")
    assert PromptFile(tmp_path / "prompts.txt", 1).prompts == ("a red mug", "a chair")


def test_a_byte_order_mark_is_removed_from_a_recipe(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(MARK + b"# What it is.\nmodel: {loss: SDS}\n")
    assert read(tmp_path / "mine.yaml") == {"model": {"loss": "SDS"}}
    assert [recipe.description for recipe in recipes(tmp_path)] == ["What it is."]


@pytest.mark.parametrize("listed", NAMES, ids=["NFC", "NFD"])
@pytest.mark.parametrize("stored", NAMES, ids=["NFC", "NFD"])
def test_names_are_found_in_both_unicode_normal_forms(tmp_path, stored, listed):
    save(tmp_path / stored, 10)
    entry = json.dumps({"file_name": listed, "text": "a cup"}, ensure_ascii=False)
    (tmp_path / "metadata.jsonl").write_text(entry, encoding="utf-8")
    assert ImageFolder(tmp_path, 8).captions == ("a cup",)


def table(path: Path, labels: list[int | None], names: list[str] | None) -> Path:
    datasets = pytest.importorskip("datasets")
    pictures = [{"bytes": content(picture(10)), "path": None} for _ in labels]
    made = datasets.Dataset.from_dict({"image": pictures, "label": labels}).cast_column("image", datasets.Image())
    if names is not None:
        made = made.cast_column("label", datasets.ClassLabel(names=names))
    made.save_to_disk(str(path))
    return path


@pytest.mark.parametrize("names", [None, ["cat", "dog"]])
@pytest.mark.parametrize("label", [-1, None])
def test_rows_without_a_label_are_named_with_the_remedy(tmp_path, names, label):
    path = table(tmp_path / "data", [0, 1, label, 1], names)
    said = rf"row 2 of train: its label is {label}, and classes are 0.*or set label_column: null"
    with pytest.raises(ValueError, match=said):
        HuggingFaceImages(path, resolution=8)
    assert HuggingFaceImages(path, resolution=8, label_column=None).classes is None
    whole = table(tmp_path / "whole", [0, 1], names)
    assert HuggingFaceImages(whole, resolution=8).classes == 2


def test_a_shards_picture_without_a_label_is_named(tmp_path):
    write_shard(tmp_path / "a.tar", {"1.cls": b"-1", "1.png": content(picture(1))})
    with pytest.raises(ValueError, match=r"a\.tar: 1\.png: its label is -1"):
        WebDatasetShards(str(tmp_path / "a.tar"), 8)
