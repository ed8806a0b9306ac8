"""Untrusted files: no code in them is executed, and nothing outside their folder is read."""

from __future__ import annotations

import ast
import io
import json
import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import EpsImagePlugin, Image

import scoredistill
from scoredistill.cli.viewer.run_page import files
from scoredistill.data.folder import ImageFolder
from scoredistill.data.picture_files import FORMATS, MOST_PIXELS, SUFFIXES, decode, read_picture
from scoredistill.rendering.mesh import Mesh
from scoredistill.studies.record import RunRecord, StudyRecord
from scoredistill.studies.report.content import Content
from scoredistill.studies.report.page import page
from scoredistill.studies.report.tables import markdown
from scoredistill.teachers.diffusers.loading import Source

PACKAGE = Path(scoredistill.__file__).parent
SOURCES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
FORBIDDEN = {
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "pickle.load", "pickle.loads", "marshal.loads", "shelve.open",
    "joblib.load", "eval", "exec", "os.system", "numpy.load", "np.load", "tar.extractall", "tar.extract",
    "zipfile.ZipFile", "shutil.unpack_archive",
}  # fmt: skip
"""Calls that execute what they read, or write to paths in an archive."""


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_pictures_are_opened_in_one_place_with_the_documented_formats():
    found = [
        (file, {word.arg for word in call.keywords})
        for file, tree in SOURCES.items()
        for name, call in calls(tree)
        if name.lower() in ("image.open", "images.open", "pil.image.open")
    ]
    assert found == [("data/picture_files.py", {"formats"})]
    assert {f".{kind.lower()}" for kind in FORMATS} | {".jpg"} == set(SUFFIXES)


def test_torch_reads_weights_only():
    loads = [(file, call) for file, tree in SOURCES.items() for name, call in calls(tree) if name == "torch.load"]
    assert loads
    for file, call in loads:
        assert {word.arg: ast.unparse(word.value) for word in call.keywords}.get("weights_only") == "True", file


@pytest.mark.parametrize("file", SOURCES)
def test_no_file_runs_code(file):
    assert not {name for name, _ in calls(SOURCES[file])} & FORBIDDEN


@pytest.mark.parametrize("kind", ["EPS", "GIF", "TIFF", "PPM", "ICO"])
def test_no_other_format_is_decoded_under_any_name(tmp_path, monkeypatch, kind):
    run = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *words, **_: run.append(words))
    path = tmp_path / "picture.png"
    if kind == "EPS":
        path.write_bytes(EPS)
    else:
        Image.new("RGB", (16, 16)).save(path, kind)
    with pytest.raises(ValueError, match=r"picture\.png: not a readable picture"):
        read_picture(path)
    assert not run


def bomb(side: int) -> bytes:
    """A PNG of black pixels, kilobytes on disk and gigabytes in memory."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_a_small_file_of_a_huge_picture_is_refused_before_it_is_decoded(side):
    assert side**2 > MOST_PIXELS
    with pytest.raises(ValueError, match=r"bomb\.png: not a readable picture"):
        decode(bomb(side), 8, gray=False, name="bomb.png")


def test_the_size_limit_is_named():
    with pytest.raises(ValueError, match=r"has 9000 x 9000 pixels, more than 67,108,864"):
        decode(bomb(9_000), 8, gray=False, name="bomb.png")


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


@pytest.mark.parametrize("what", ["class", "picture", "below", "caption", "metadata"])
def test_data_outside_the_folder_are_refused(tmp_path, what):
    inside, outside = tmp_path / "data", tmp_path / "secret"
    picture(inside / "a/1.png")
    picture(outside / "2.png")
    (outside / "words.txt").write_text("secret")
    (outside / "lines.jsonl").write_text('{"file_name": "a/1.png", "text": "secret"}')
    link = {
        "class": ("b", outside), "picture": ("a/2.png", outside / "2.png"), "below": ("a/deep", outside),
        "caption": ("a/1.txt", outside / "words.txt"), "metadata": ("metadata.jsonl", outside / "lines.jsonl"),
    }[what]  # fmt: skip
    (inside / link[0]).symlink_to(link[1])
    if what == "below":  # folders' links are not followed at all
        assert [path.name for path, _ in ImageFolder(inside, 8).files] == ["1.png"]
        return
    with pytest.raises(ValueError, match=r"is a link that points out of .*data"):
        assert ImageFolder(inside, 8).captions


def test_links_within_a_folder_and_to_it_are_followed(tmp_path):
    picture(tmp_path / "data/a/1.png")
    (tmp_path / "data/a/2.png").symlink_to("1.png")
    (tmp_path / "there").symlink_to(tmp_path / "data")
    assert len(ImageFolder(tmp_path / "there", 8)) == 2


def test_the_viewer_serves_nothing_outside_the_run(tmp_path):
    run, secret = tmp_path / "run", picture(tmp_path / "secret.png")
    picture(run / "grid.png")
    picture(run / "pictures/step_000001.png")
    (run / "stolen.png").symlink_to(secret)
    (run / "config.yaml").symlink_to("/etc/hostname")
    (run / "predictions").symlink_to(tmp_path)
    picture(tmp_path / "0/samples.png")
    assert files(run) == ["grid.png", "pictures/step_000001.png"]


def pipeline(folder: Path, library: str, kind: str) -> Source:
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": "StableDiffusionPipeline", "scheduler": [library, kind], "vae": [library, kind]})
    )
    return Source(str(folder))


def test_a_pipeline_imports_no_other_module(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path('ran').touch()\nclass Scheduler: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"the scheduler is from 'evil'; only classes of diffusers and transformers"):
        pipeline(tmp_path, "evil", "Scheduler").read("scheduler")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("library", "kind"),
    [("diffusers", "FooScheduler"), ("transformers", "pipeline"), ("diffusers", "os"), ("transformers", "__name__")],
)
def test_a_class_that_a_library_lacks_is_named_with_its_version(tmp_path, library, kind):
    with pytest.raises(ValueError, match=rf"the scheduler is a {kind}, and {library} \d.* has no such class"):
        pipeline(tmp_path, library, kind).read("scheduler")


def test_a_mesh_reads_no_pictures(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(Image, "open", lambda *words, **_: opened.append(words))
    picture_bytes = io.BytesIO()
    Image.new("RGB", (2, 2)).save(picture_bytes, "PNG")
    (tmp_path / "secret.png").write_bytes(picture_bytes.getvalue())
    (tmp_path / "m.mtl").write_text("newmtl a\nmap_Kd secret.png\n")
    (tmp_path / "m.obj").write_text("mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl a\nf 1/1 2/1 3/1\n")
    assert len(Mesh.load(tmp_path / "m.obj").faces) == 1
    assert torch.equal(Mesh.load(tmp_path / "m.obj").faces.flatten().sort().values, torch.arange(3))
    assert not opened


def test_a_glb_with_a_texture_gives_its_shape_and_reads_no_picture(tmp_path, monkeypatch):
    trimesh = pytest.importorskip("trimesh")
    box = trimesh.creation.box()
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.new("RGB", (2, 2)))
    box.visual = trimesh.visual.TextureVisuals(uv=torch.zeros(8, 2).numpy(), material=material)
    (tmp_path / "box.glb").write_bytes(box.export(file_type="glb"))
    opened = []
    monkeypatch.setattr(Image, "open", lambda *words, **_: opened.append(words))
    assert len(Mesh.load(tmp_path / "box.glb").faces) == 12
    assert not opened


HOSTILE = '"><script>alert(1)</script>|`<b>\n\n<b>'


def test_no_text_of_a_record_becomes_part_of_the_page(tmp_path):
    record = study(tmp_path, HOSTILE)
    record.write(tmp_path)
    content = Content.of(tmp_path)
    outside_code = re.sub(r"`[^`\n]*`", "", markdown(content))
    for text in (page(content), outside_code):
        assert "<script>alert" not in text
        assert "<b>" not in text
        assert "alert(1)" in text


@pytest.mark.parametrize("seed", [HOSTILE, 1.5, None, True])
def test_a_seed_is_a_number(tmp_path, seed):
    record = study(tmp_path, "plain")
    for changed in (replace(record, seeds=[seed]), replace(record, runs=[replace(record.runs[0], seed=seed)])):
        changed.write(tmp_path)
        with pytest.raises(ValueError, match="is not an integer"):
            StudyRecord.read(tmp_path)


@pytest.mark.parametrize("name", ["folder", "run"])
def test_a_record_cannot_name_runs_outside_the_study(tmp_path, name):
    record = study(tmp_path, "plain")
    (tmp_path / "link").symlink_to("/")
    for elsewhere in ("../other", "/etc", "link/etc"):
        replace(record, runs=[replace(record.runs[0], **{name: elsewhere})]).write(tmp_path)
        with pytest.raises(ValueError, match=r"is outside the study's folder and is not read"):
            StudyRecord.read(tmp_path)


def study(folder: Path, text: str) -> StudyRecord:
    """A record of a finished and a failed run, in which all texts are the same."""
    for seed in (0, 1):
        run = folder / f"runs/{seed}"
        run.mkdir(parents=True)
        (run / "metrics.json").write_text(json.dumps({text: 1.0 + seed}))
        (run / "cost.json").write_text(json.dumps({"seconds": 1.0}))
        (run / "versions.json").write_text(json.dumps([{"torch": text, "device": text}]))
    done = [RunRecord(text, {text: text}, seed, "done", f"runs/{seed}", f"runs/{seed}") for seed in (0, 1)]
    failed = RunRecord(text, {text: text}, 2, "failed", "runs/2", None, text)
    return StudyRecord(text, text, {text: [text]}, [0, 1, 2], {text: text}, [text], [*done, failed])
