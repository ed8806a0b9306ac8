"""scoredistill view: the content of a run's page, and what the server sends and refuses."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from scoredistill.cli.viewer import workshop
from scoredistill.cli.viewer.command import find_run
from scoredistill.cli.viewer.run_page import Scenes, find_scenes, last_checkpoint, report
from scoredistill.cli.viewer.server import PAGE, Server
from scoredistill.training.run_folder import RunFolder, read_curves

PAGES = Path(workshop.__file__).parent / "page"
RECIPE = {
    "model": {
        "generator": {"class_path": "scoredistill.generators.NeRF", "init_args": {"particles": 2, "latents": None}},
        "teacher": {"class_path": "scoredistill.teachers.Gallery", "init_args": {"janus": 0.0}},
        "loss": {
            "class_path": "scoredistill.losses.VSD",
            "init_args": {"critic": {"class_path": "ParticleCritic", "init_args": {"bandwidth": 0.5}}, "weight": None},
        },
        "ema": 0.5,
        "plan": None,
    },
    "data": {"class_path": "X", "init_args": {"prompt": ["a red mug", "a tree"], "negative_prompt": "gray"}},
    "trainer": {"max_steps": 40},
}
LOG = "epoch,loss,psnr,step\n0,2.0,,0\n0,1.5,20.0,10\n0,nan,,20\n0,1.2"  # the last line is being written


def write_run(path: Path, recipe: dict = RECIPE, steps: int | None = 20) -> RunFolder:
    for name in ("logs/version_0", "pictures", "checkpoints"):
        (path / name).mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(recipe, explicit_end=True))
    (path / "logs/version_0/metrics.csv").write_text(LOG)
    (path / "versions.json").write_text(json.dumps([{"command": ["scoredistill", "fit"], "device": "cpu"}]))
    for step in (10, 20):
        Image.new("RGB", (12, 8), (step, 0, 0)).save(path / f"pictures/step_{step:06d}.png")
    if steps is not None:
        write_checkpoint(path, steps)
    return RunFolder(path)


def write_checkpoint(path: Path, steps: int) -> None:
    torch.save({"state_dict": {}, "global_step": steps}, path / "checkpoints/last.ckpt")


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "runs/toy/3")


@pytest.fixture
def server(run):
    with Server("127.0.0.1", 0, run) as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield started
        started.shutdown()
        thread.join()


def ask(server, path, method="GET", **headers):
    connection = HTTPConnection(*server.server_address[:2], timeout=30)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def ask_until_made(server, path):
    for _ in range(1000):
        status, _, content = ask(server, path)
        if status != 202:
            return status, content
        time.sleep(0.02)
    raise AssertionError(f"{path} was never made")


def test_report(run):
    said = report(run)
    assert (said["name"], said["command"], said["made_with"]) == ("toy/3", "scoredistill fit", {"device": "cpu"})
    assert said["conditions"] == [("prompt", "a red mug\na tree"), ("negative_prompt", "gray")]
    assert [(part["part"], part["class"]) for part in said["settings"]] == [
        ("loss", "VSD"),
        ("teacher", "Gallery"),
        ("generator", "NeRF"),
        ("ema", "0.5"),
    ]
    assert said["settings"][0]["rows"] == [("critic", "ParticleCritic"), ("critic.bandwidth", "0.5")]
    assert (said["step"], said["of"], said["finished"]) == (20, 40, False)
    assert [picture["step"] for picture in said["pictures"]] == [10, 20]
    assert said["scenes"]["particles"] == 2
    assert said["scenes"]["key"].startswith("step_000020_")
    json.dumps(said)


def test_a_run_ends(run):
    write_checkpoint(run.path, 40)
    (run.path / "metrics.json").write_text('{"seconds": 3.0}')
    for name in ("grid.png", "turntable.webp"):
        Image.new("RGB", (12, 8)).save(run.path / name)
    said = report(run)
    assert (said["step"], said["finished"], said["metrics"]) == (40, True, {"seconds": 3.0})
    assert said["pictures"][-1] == {"step": 40, "file": "grid.png"}
    assert said["others"] == ["turntable.webp"]


def test_a_run_before_its_first_checkpoint(tmp_path):
    run = write_run(tmp_path / "0", {"model": {}, "data": {"class_path": "X"}}, steps=None)
    said = report(run)
    assert (said["scenes"], said["conditions"], said["of"]) == (None, [], None)
    assert last_checkpoint(run) is None
    assert find_run(tmp_path / "0") == run


def test_curves(run):
    assert read_curves(run.path) == {"loss": ([0, 10, 20], [2.0, 1.5, None]), "psnr": ([10], [20.0])}
    later = run.path / "logs/version_1"
    later.mkdir()
    (later / "metrics.csv").write_text("loss,step\n1.0,10\n0.5,30\n")
    assert read_curves(run.path) == {"loss": ([0, 10, 30], [2.0, 1.0, 0.5])}


@pytest.mark.parametrize(
    ("generator", "scenes"),
    [
        ({"class_path": "scoredistill.generators.NeRF", "init_args": {"particles": 3}}, Scenes(3, True)),
        ({"class_path": "scoredistill.generators.NeRF", "init_args": {"latents": 4}}, Scenes(1, False)),
        ({"class_path": "scoredistill.generators.ImageParticles", "init_args": {"init": [[0.0]]}}, None),
        ({"class_path": "no_longer_there.Thing"}, None),
        (None, None),
    ],
)
def test_scenes_by_class(generator, scenes):
    assert find_scenes({"model": {"generator": generator}}) == scenes


def test_server_gives_out_the_page_and_the_run(server):
    for name in PAGE:
        status, headers, content = ask(server, f"/page/{name}")
        assert (status, content) == (200, (PAGES / name).read_bytes())
        assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert ask(server, "/")[2] == (PAGES / "index.html").read_bytes()
    assert json.loads(ask(server, "/run.json")[2])["name"] == "toy/3"
    assert json.loads(ask(server, "/curves.json")[2])["psnr"] == [[10], [20.0]]
    status, headers, content = ask(server, "/files/pictures/step_000010.png")
    assert (status, headers["Content-Type"], content[:4]) == (200, "image/png", b"\x89PNG")


def test_unchanged_files_are_not_sent_again(server):
    _, headers, content = ask(server, "/curves.json")
    status, _, again = ask(server, "/curves.json", **{"If-None-Match": headers["ETag"]})
    assert (status, again) == (304, b"")
    status, head, nothing = ask(server, "/curves.json", method="HEAD")
    assert (status, nothing, int(head["Content-Length"])) == (200, b"", len(content))


@pytest.mark.parametrize(
    "path",
    [
        "/files/../../../secret",
        "/files/..%2f..%2f..%2fsecret",
        "/files/%2e%2e/%2e%2e/%2e%2e/secret",
        "/files//etc/passwd",
        "/files/pictures/../../../../secret",
        "/files/checkpoints/last.ckpt",
        "/page/../server.py",
        "/page/%2e%2e/server.py",
        "/page/",
        "/made/../particle_0.glb",
        "/made/step_000020_0/particle_0.glb",
        "/made/step_000020_0/particle_7.glb",
        "/secret",
    ],
)
def test_no_other_file_is_served(server, run, path):
    (run.path.parents[2] / "secret").write_text("secret")
    status, _, content = ask(server, path)
    assert status == 404
    assert set(json.loads(content)) == {"error"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:9999", 200),  # a forwarded port
        ("[::1]:80", 200),
        ("example.org", 403),
        ("127.0.0.1.example.org", 403),
        ("192.168.0.1", 403),
        ("", 403),
    ],
)
def test_only_local_requests_are_answered(server, host, status):
    assert ask(server, "/run.json", Host=host)[0] == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(server, method):
    assert ask(server, "/run.json", method=method)[0] == 501


def test_a_file_that_cannot_be_read_is_named(server, run):
    (run.path / "checkpoints/last.ckpt").write_bytes(b"torn")
    status, _, content = ask(server, "/run.json")
    assert status == 200
    said = json.loads(content)
    assert "last.ckpt is not a checkpoint" in said["damaged"][0]
    assert said["pictures"]  # the rest is there


def test_meshes_are_made_once_for_each_checkpoint(server, run, monkeypatch):
    asked = []

    def export(words):
        asked.append(words)
        if "--turntable" in words:
            raise ValueError("no surface at level 5")
        folder, particle = Path(words[words.index("--output") + 1]), words[words.index("--particles") + 1]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"particle_{particle}.glb").write_bytes(b"glTF")

    monkeypatch.setattr(workshop, "export", export)
    key = last_checkpoint(run).key
    for _ in range(2):
        assert ask_until_made(server, f"/made/{key}/particle_1.glb") == (200, b"glTF")
    assert len(asked) == 1
    assert asked[0][:4] == [
        str(run.path / "checkpoints/last.ckpt"),
        "--output",
        str(run.path / "view" / key),
        "--particles",
    ]
    for particle in (0, 1):  # of both at once
        status, content = ask_until_made(server, f"/made/{key}/particle_{particle}.webp")
        assert (status, json.loads(content)) == (422, {"error": "no surface at level 5"})
    assert len(asked) == 2

    write_checkpoint(run.path, 30)
    os.utime(run.path / "checkpoints/last.ckpt", ns=(1, 1))
    assert ask(server, f"/made/{key}/particle_1.glb")[0] == 200  # kept
    status, _, content = ask(server, f"/made/{key}/particle_0.glb")
    assert (status, json.loads(content)["error"]) == (404, "training has written another checkpoint since")
    assert last_checkpoint(run).key == "step_000030_1"


def test_the_page_is_self_contained():
    for name in PAGE:
        if name != "model-viewer.min.js":
            assert not re.search(r"https?://", (PAGES / name).read_text(encoding="utf-8")), name
    notice = (PAGES / "NOTICE").read_text(encoding="utf-8")
    assert hashlib.sha256((PAGES / "model-viewer.min.js").read_bytes()).hexdigest() in notice
    assert "Apache License" in (PAGES / "model-viewer.LICENSE").read_text(encoding="utf-8")


def test_errors_of_the_command_are_reported(cli, folder, run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for words, said in [
            (["nowhere"], "there is no checkpoint and no run folder nowhere"),
            ([folder / "runs/toy"], "the newest run in it is"),
            ([folder / "runs"], "config.yaml is missing"),
            ([run.path, "--host", "0.0.0.0"], "expected a loopback address such as 127.0.0.1 or ::1, got 0.0.0.0"),
            ([run.path, "--port", port], "Address already in use; --port 0 selects a free port"),
            ([run.path, "--port", 70000], "from 0 to 65535, got 70000"),
            ([], "required: RUN; see `scoredistill view --help`"),
        ]:
            result = cli("view", *words)
            assert result.code == 2
            assert said in result.err
            assert len(result.err.splitlines()) == 1
    assert "view" in cli("--help").out
    assert "--no-browser" in cli("view", "--help").out


@pytest.mark.slow
def test_ctrl_c_ends_quietly(run):
    words = [sys.executable, "-m", "scoredistill", "view", str(run.path), "--no-browser"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A shell's background jobs ignore Ctrl-C, and so would their children.
    with subprocess.Popen(words, **pipes, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as started:
        try:
            address = re.search(r"http://(127\.0\.0\.1):(\d+)/", started.stdout.readline())
            connection = HTTPConnection(address[1], int(address[2]), timeout=60)
            connection.request("GET", "/run.json")
            assert connection.getresponse().status == 200
            connection.close()
            started.send_signal(signal.SIGINT)
            out, err = started.communicate(timeout=60)
        finally:
            started.kill()
    assert (started.returncode, out.strip(), err) == (0, "", "")
