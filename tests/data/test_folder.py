"""Pictures in folders."""

import json

import pytest
import torch
from data.pictures_on_disk import levels, picture, save
from PIL import Image

from scoredistill.data import ImageFolder
from scoredistill.training import Images


def test_subfolders_are_classes_in_sorted_order(tmp_path) -> None:
    for name, level in [("zebra/1.png", 10), ("ape/b.png", 20), ("ape/a.jpg", 30), ("ape/deep/c.PNG", 40)]:
        save(tmp_path / name, level)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "ape" / "notes.txt").write_text("no picture")
    source = ImageFolder(tmp_path, 4)
    samples, labels = source.all()
    assert (source.classes, source.names, samples.shape) == (2, ["ape", "zebra"], (4, 3, 4, 4))
    assert labels.tolist() == [0, 0, 0, 1]
    assert [abs(a - b) <= 2 for a, b in zip(levels(samples), [30, 20, 40, 10], strict=True)] == [True] * 4  # JPEG
    assert samples[:, 1].max() < -0.98
    assert samples.abs().max() <= 1


def test_a_folder_without_subfolders_has_no_labels(tmp_path) -> None:
    for level in (1, 2, 3):
        save(tmp_path / f"{level}.png", level)
    source = ImageFolder(tmp_path, 8)
    samples, labels = source.all()
    assert (source.classes, labels, levels(samples)) == (None, None, [1, 2, 3])


def test_the_central_square_is_resampled_with_antialiasing(tmp_path) -> None:
    # Black edges left and right of a square of alternating black and white columns.
    stripes = Image.new("L", (32, 16))
    for x in range(8, 24, 2):
        stripes.paste(255, (x, 0, x + 1, 16))
    stripes.save(tmp_path / "stripes.png")
    sample, _ = ImageFolder(tmp_path, 4, gray=True)[0]
    assert sample.shape == (1, 4, 4)
    assert sample.abs().max() < 0.2  # the mean gray, without the stripes' aliases or the edges' black
    assert ImageFolder(tmp_path, 16)[0][0].shape == (3, 16, 16)


def test_transparency_becomes_white_and_orientation_is_obeyed(tmp_path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "a.png")
    turned = Image.new("RGB", (8, 8))
    turned.paste((255, 255, 255), (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "b.png", exif=exif)
    samples, _ = ImageFolder(tmp_path, 8, gray=True).all()
    assert samples[0].min() == 1
    assert (float(samples[1, 0, 0, 0]), float(samples[1, 0, 7, 0])) == (-1, 1)


def test_missing_and_empty_folders_are_errors(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: this folder of pictures does not exist"):
        ImageFolder(tmp_path / "nowhere", 8)
    with pytest.raises(FileNotFoundError, match="contains no pictures"):
        ImageFolder(tmp_path, 8)
    save(tmp_path / "full" / "a.png", 1)
    (tmp_path / "hollow").mkdir()
    with pytest.raises(FileNotFoundError, match="hollow: contains no pictures"):
        ImageFolder(tmp_path, 8)


def test_pictures_beside_class_folders_are_an_error(tmp_path) -> None:
    save(tmp_path / "class" / "a.png", 1)
    save(tmp_path / "stray.png", 1)
    with pytest.raises(ValueError, match=r"stray\.png is next to class folders"):
        ImageFolder(tmp_path, 8)


@pytest.mark.parametrize("broken", ["text", "truncated", "deep", "header"])
def test_a_corrupt_picture_is_named(tmp_path, broken: str) -> None:
    path = tmp_path / "bad.png"
    whole = picture(3, (64, 64))
    if broken == "deep":
        Image.new("I;16", (8, 8)).save(path)
    else:
        whole.save(path)
        data = path.read_bytes()
        path.write_bytes({"text": b"hello", "truncated": data[: len(data) // 2], "header": data[:20]}[broken])
    with pytest.raises(ValueError, match=r"bad\.png: not a readable picture \(.*\); repair or remove it"):
        ImageFolder(tmp_path, 8)[0]


def test_other_files_have_another_fingerprint(tmp_path) -> None:
    save(tmp_path / "a.png", 1)
    before = ImageFolder(tmp_path, 8).fingerprint()
    assert ImageFolder(tmp_path, 8).fingerprint() == before
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    assert ImageFolder(tmp_path, 8).fingerprint() != before


@pytest.mark.parametrize("form", ["metadata", "text files"])
def test_captions_lie_in_a_list_or_beside_the_pictures(tmp_path, form: str) -> None:
    texts = {"b.png": "a blue torus", "a.jpg": "a red mug", "c.PNG": "a häppy snowman"}
    for level, name in enumerate(texts):
        save(tmp_path / name, level)
    if form == "metadata":
        texts["c.PNG"] = "a häppy\u2028snowman"
        entries = [{"file_name": name, "text": text, "more": 1} for name, text in texts.items()]
        lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
        lines += ["", json.dumps({"file_name": "gone.png", "text": "of no picture here"})]
        (tmp_path / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
        (tmp_path / "a.txt").write_text("not this")
    else:
        for name, text in texts.items():
            (tmp_path / name).with_suffix(".txt").write_text(f"{text}\n", encoding="utf-8")
    assert ImageFolder(tmp_path, 8).captions == tuple(texts[name] for name in sorted(texts))


def test_captions_of_classes_are_found_in_their_folders(tmp_path) -> None:
    for name in ("ape/1.png", "zebra/deep/1.png"):
        save(tmp_path / name, 1)
        (tmp_path / name).with_suffix(".txt").write_text(name)
    source = ImageFolder(tmp_path, 8)
    assert (source.captions, source.classes) == (("ape/1.png", "zebra/deep/1.png"), 2)
    lines = [json.dumps({"file_name": name, "text": name.upper()}) for name in ("ape/1.png", "zebra/deep/1.png")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert ImageFolder(tmp_path, 8).captions == ("APE/1.PNG", "ZEBRA/DEEP/1.PNG")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"b.txt": b"text"}, r"a\.txt: is missing, while other pictures have a caption"),
        ({"a.txt": b"text", "b.txt": b"\xff"}, r"b\.txt: not UTF-8"),
        ({"metadata.jsonl": b'{"file_name": "b.png", "text": "x"}'}, r"metadata\.jsonl: has no caption of a\.png"),
        ({"metadata.jsonl": b'{"file_name": "a.png"}'}, r"metadata\.jsonl: line 1 is not .*'text'"),
        ({"metadata.jsonl": b'\n{"file_name": "a.png", "text": 3}'}, r"line 2: expected text for a\.png, got 3"),
        ({"metadata.jsonl": b"["}, r"metadata\.jsonl: line 1 is not"),
    ],
)
def test_missing_and_broken_captions_name_the_file(tmp_path, files: dict[str, bytes], message: str) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / name, 1)
    assert ImageFolder(tmp_path, 8).captions is None
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert len(ImageFolder(tmp_path, 8)) == 2  # pictures without their captions are there as before
    with pytest.raises(ValueError, match=message):
        Images(ImageFolder(tmp_path, 8), 2, "text")


def test_a_resolution_is_positive(tmp_path) -> None:
    with pytest.raises(ValueError, match="resolution must be at least 1, got 0"):
        ImageFolder(tmp_path, 0)


def test_reading_does_not_change_the_random_state(tmp_path) -> None:
    save(tmp_path / "a.png", 1)
    state = torch.get_rng_state()
    ImageFolder(tmp_path, 8).all()
    assert torch.equal(torch.get_rng_state(), state)
