"""Tar files in WebDataset's layout."""

import json
import tarfile

import pytest
from data.pictures_on_disk import content, levels, picture, write_shard

from scoredistill.data import WebDatasetShards
from scoredistill.data.shards import find_shards
from scoredistill.training import Images


def test_pictures_and_labels_are_found_by_key(tmp_path) -> None:
    write_shard(
        tmp_path / "train-000.tar",
        {
            "a/001.cls": b"2",
            "a/001.png": content(picture(10)),
            "b/001.jpg": content(picture(20), "JPEG"),
            "b/001.json": json.dumps({"label": 0, "text": "x"}).encode(),
            "notes.txt": b"no picture",
        },
    )
    write_shard(tmp_path / "train-001.tar", {"002.webp": content(picture(30), "WEBP"), "002.cls": b"1\n"})
    source = WebDatasetShards(str(tmp_path / "train-*.tar"), 4)
    samples, labels = source.all()
    assert (len(source), source.classes, samples.shape) == (3, 3, (3, 3, 4, 4))
    assert labels.tolist() == [2, 0, 1]
    assert [abs(a - b) <= 4 for a, b in zip(levels(samples), [10, 20, 30], strict=True)] == [True] * 3
    assert samples.abs().max() <= 1


def test_cls_takes_precedence_over_json(tmp_path) -> None:
    both = {"cls": b"1", "json": b'{"label": 5}', "png": content(picture(1))}
    for name, order in [("a.tar", ("cls", "json", "png")), ("b.tar", ("png", "json", "cls"))]:
        write_shard(tmp_path / name, {f"1.{ending}": both[ending] for ending in order})
    assert WebDatasetShards(str(tmp_path / "*.tar"), 8).all()[1].tolist() == [1, 1]


@pytest.mark.parametrize("order", [("txt", "json", "png"), ("png", "json", "txt")])
def test_captions_are_text_files_or_keys(tmp_path, order: tuple[str, ...]) -> None:
    parts = {"png": content(picture(1)), "txt": "a häppy mug\n".encode(), "json": b'{"text": "not this"}'}
    write_shard(tmp_path / "a.tar", {f"1.{ending}": parts[ending] for ending in order})
    write_shard(tmp_path / "b.tar", {"2.json": b'{"text": "a tree", "caption": "a lamp"}', "2.png": parts["png"]})
    source = WebDatasetShards(str(tmp_path / "*.tar"), 8)
    assert (source.captions, source.classes) == (("a häppy mug", "a tree"), None)
    assert WebDatasetShards(str(tmp_path / "b.tar"), 8, text_key="caption").captions == ("a lamp",)
    assert WebDatasetShards(str(tmp_path / "b.tar"), 8, text_key="other").captions is None


def test_missing_and_broken_captions_name_the_file(tmp_path) -> None:
    png = content(picture(1))
    write_shard(tmp_path / "a.tar", {"1.png": png, "1.txt": b"a mug", "2.png": png, "2.json": b'{"text": 3}'})
    with pytest.raises(ValueError, match=r"a\.tar: 2\.png has no caption \(\.txt or \.json\)"):
        Images(WebDatasetShards(str(tmp_path / "a.tar"), 8), 2, "text")
    write_shard(tmp_path / "b.tar", {"1.png": png, "1.txt": b"\xff"})
    source = WebDatasetShards(str(tmp_path / "b.tar"), 8)
    assert len(source.all()[0]) == 1
    with pytest.raises(ValueError, match=r"b\.tar: the caption of 1\.png is not UTF-8"):
        Images(source, 2, "text")


def test_without_labels_and_in_the_order_of_a_list(tmp_path) -> None:
    for i in range(3):
        write_shard(tmp_path / f"s-{i:02d}.tar", {"x.png": content(picture(i)), "x.json": b'{"text": "a"}'})
    named = [str(tmp_path / f"s-{i:02d}.tar") for i in (2, 0)]
    assert levels(WebDatasetShards(named, 8).all()[0]) == [2, 0]
    source = WebDatasetShards(str(tmp_path / "s-{00..01}.tar"), 8, gray=True)
    assert (len(source), source.classes, source.all()[1], source.shape) == (2, None, None, (1, 8, 8))


def test_shards_that_match_nothing_are_an_error(tmp_path) -> None:
    for shards in (str(tmp_path / "*.tar"), [str(tmp_path / "gone.tar")]):
        with pytest.raises(FileNotFoundError, match=r"\.tar: matches no shard"):
            WebDatasetShards(shards, 8)
    with pytest.raises(FileNotFoundError, match="the list of shards is empty"):
        WebDatasetShards([], 8)
    write_shard(tmp_path / "a.tar", {"a.txt": b""})
    with pytest.raises(FileNotFoundError, match="the shards contain no pictures"):
        WebDatasetShards(str(tmp_path / "a.tar"), 8)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.png": content(picture(1)), "1.cls": b"cat"}, r"a\.tar: 1\.cls contains no class number"),
        ({"1.png": content(picture(1)), "1.json": b'{"label": 1.5}'}, r"1\.json contains no class number"),
        ({"1.png": content(picture(1)), "1.json": b"{"}, r"1\.json contains no class number"),
        ({"1.png": content(picture(1)), "1.cls": b"-1"}, "1.png: its label is -1, and classes are 0, 1, 2"),
        ({"1.png": b"", "1.cls": b"1", "2.png": b""}, r"a\.tar: 2\.png has no label"),
    ],
)
def test_bad_labels_are_errors_that_name_the_file(tmp_path, members: dict[str, bytes], message: str) -> None:
    write_shard(tmp_path / "a.tar", members)
    with pytest.raises(ValueError, match=message):
        WebDatasetShards(str(tmp_path / "a.tar"), 8)


def test_a_file_that_is_not_a_plain_tar_is_an_error(tmp_path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    with pytest.raises(ValueError, match=r"a\.tar: not an uncompressed tar file"):
        WebDatasetShards(str(tmp_path / "a.tar"), 8)


def test_a_corrupt_picture_is_named_with_its_shard(tmp_path) -> None:
    write_shard(tmp_path / "a.tar", {"fine.png": content(picture(1)), "bad.png": b"hello"})
    source = WebDatasetShards(str(tmp_path / "a.tar"), 8)
    assert levels(source[0][0][None]) == [1]
    with pytest.raises(ValueError, match=r"a\.tar: bad\.png: not a readable picture"):
        source[1]


def test_a_range_without_end_stops_at_the_first_file_that_is_missing(tmp_path):
    (tmp_path / "x-0.tar").touch()
    with pytest.raises(FileNotFoundError, match=r"x-1\.tar: matches no shard"):
        find_shards(str(tmp_path / "x-{0..1000000000}.tar"))
    with pytest.raises(FileNotFoundError, match=r"y-0-0\.tar: matches no shard"):
        find_shards(str(tmp_path / "y-{0..1000000000}-{0..1000000000}.tar"))
