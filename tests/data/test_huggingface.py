"""Local data sets of the datasets library."""

import builtins

import pytest
from data.pictures_on_disk import content, levels, picture, save

from scoredistill.data import HuggingFaceImages


def test_without_the_datasets_library_the_extra_is_named(tmp_path, monkeypatch) -> None:
    real = builtins.__import__

    def without(name, *args, **kwargs):  # type: ignore[no-untyped-def]
        if name == "datasets":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"install scoredistill\[data\]"):
        HuggingFaceImages(tmp_path)


@pytest.fixture
def datasets(tmp_path, monkeypatch):  # type: ignore[no-untyped-def]
    library = pytest.importorskip("datasets")
    library.disable_progress_bars()
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return library


def table(datasets, levels: list[int], labels: list[int] | None = None):  # type: ignore[no-untyped-def]
    columns = {"picture": [{"bytes": content(picture(level)), "path": None} for level in levels]}
    kinds = {"picture": datasets.Image()}
    if labels is not None:
        columns["kind"] = labels
        kinds["kind"] = datasets.ClassLabel(names=["a", "b", "c"])
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


@pytest.mark.parametrize("form", ["disk", "splits", "parquet", "folder of parquet"])
def test_datasets_are_read_from_every_form(tmp_path, datasets, form: str) -> None:
    made, path = table(datasets, [10, 20, 30], [2, 0, 1]), tmp_path / "set"
    match form:
        case "disk":
            made.save_to_disk(path)
        case "splits":
            datasets.DatasetDict({"train": made, "test": table(datasets, [1], [1])}).save_to_disk(path)
        case "parquet":
            path = tmp_path / "set.parquet"
            made.to_parquet(path)
        case _:
            path.mkdir()
            made.to_parquet(path / "train-00000-of-00001.parquet")
            table(datasets, [1], [1]).to_parquet(path / "test-00000-of-00001.parquet")
    source = HuggingFaceImages(path, "train", "picture", "kind", 4)
    samples, labels = source.all()
    assert (source.classes, source.shape, levels(samples), labels.tolist()) == (3, (3, 4, 4), [10, 20, 30], [2, 0, 1])
    assert HuggingFaceImages(path, "train", "picture", None, 4).all()[1] is None
    if form in ("splits", "folder of parquet"):
        assert levels(HuggingFaceImages(path, "test", "picture", "kind", 4).all()[0]) == [1]


def test_datasets_read_folders_of_pictures(tmp_path, datasets) -> None:
    for name, level in [("train/ape/a.png", 10), ("train/zebra/b.png", 20)]:
        save(tmp_path / "set" / name, level)
    samples, labels = HuggingFaceImages(tmp_path / "set", resolution=8).all()
    assert (levels(samples), labels.tolist()) == ([10, 20], [0, 1])


def test_datasets_have_captions_in_a_column(tmp_path, datasets) -> None:
    made = table(datasets, [10, 20], [1, 0]).add_column("caption", ["a mug", "a tree"])
    made.save_to_disk(tmp_path / "set")
    settings = {"image_column": "picture", "label_column": None, "resolution": 4}
    source = HuggingFaceImages(tmp_path / "set", text_column="caption", **settings)
    assert (source.captions, source.classes) == (("a mug", "a tree"), None)
    assert HuggingFaceImages(tmp_path / "set", **settings).captions is None
    made.add_column("gaps", ["a mug", None]).save_to_disk(tmp_path / "gaps")
    with pytest.raises(ValueError, match="gaps: row 1 of train: expected text in gaps, got None"):
        HuggingFaceImages(tmp_path / "gaps", text_column="gaps", **settings)
    with pytest.raises(ValueError, match="has no column 'text'"):
        HuggingFaceImages(tmp_path / "gaps", text_column="text", **settings)


def test_a_folder_of_pictures_with_metadata_has_captions(tmp_path, datasets) -> None:
    for name, level in [("a.png", 10), ("b.png", 20)]:
        save(tmp_path / "set" / name, level)
    lines = ['{"file_name": "b.png", "text": "a tree"}', '{"file_name": "a.png", "text": "a mug"}']
    (tmp_path / "set" / "metadata.jsonl").write_text("\n".join(lines))
    source = HuggingFaceImages(tmp_path / "set", label_column=None, resolution=4, text_column="text")
    texts = dict(zip(levels(source.all()[0]), source.captions, strict=True))
    assert texts == {10: "a mug", 20: "a tree"}


def test_missing_data_sets_and_columns_are_reported(tmp_path, datasets) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: this data set does not exist"):
        HuggingFaceImages(tmp_path / "nowhere")
    datasets.DatasetDict({"train": table(datasets, [1])}).save_to_disk(tmp_path / "set")
    with pytest.raises(ValueError, match=r"no column 'image'; its columns are \['picture'\]"):
        HuggingFaceImages(tmp_path / "set", label_column=None)
    with pytest.raises(ValueError, match=r"no split 'test'; its splits are \['train'\]"):
        HuggingFaceImages(tmp_path / "set", "test", "picture", None)
    broken = datasets.Dataset.from_dict({"image": [{"bytes": b"x", "path": None}]})
    broken.cast_column("image", datasets.Image(decode=False)).save_to_disk(tmp_path / "broken")
    with pytest.raises(ValueError, match="broken: row 0 of train: not a readable picture"):
        HuggingFaceImages(tmp_path / "broken", label_column=None)[0]
