"""The page of `scoredistill view` in a browser: headless Chromium with software WebGL."""

import json
import shutil
import threading

import pytest

from scoredistill.cli.viewer.run_page import last_checkpoint
from scoredistill.cli.viewer.server import Server
from scoredistill.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

RUN = """\
model:
  generator:
    class_path: NeRF
    init_args:
      particles: 2
      resolution: 8
      samples: 16
      encoding: {class_path: DenseGrid, init_args: {resolution: 8}}
  teacher: {class_path: Gallery, init_args: {supersample: 1}}
  loss: SDS
data: {class_path: PromptAndCameras, init_args: {prompt: a red mug, negative_prompt: a tree, views: 1}}
trainer:
  max_steps: 4
  accelerator: cpu
  log_every_n_steps: 1
  callbacks:
  - {class_path: ParticleGrid, init_args: {every: 2, resolution: 8, views: 2}}
"""
MESHES = RUN.replace(
    """\
    class_path: NeRF
    init_args:
      particles: 2
      resolution: 8
      samples: 16
""",
    """\
    class_path: DMTet
    init_args:
      particles: 2
      resolution: 8
      grid: 8
""",
)
QUIET = ("--no-sandbox", "--disable-background-networking")
SOFTWARE = ("--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
LOADED = """() => {
  const views = [...document.querySelectorAll("model-viewer")];
  return views.length === 2 && views.every(view => view.loaded);
}"""


@pytest.fixture
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on PATH")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=[*QUIET, *SOFTWARE])
        yield started
        started.close()


@pytest.fixture
def recipe():
    return RUN


@pytest.fixture
def run(cli, folder, recipe):
    """Two tiny scenes, trained for four steps."""
    (folder / "scenes.yaml").write_text(recipe)
    result = cli("fit", "--config", "scenes.yaml")
    assert result.code == 0, result.err
    return RunFolder(folder / "runs/scenes/0")


@pytest.fixture
def server(run):
    with Server("127.0.0.1", 0, run) as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield started
        started.shutdown()
        thread.join()


@pytest.fixture
def page(browser, server):
    """The page. At the end there must be no error on its console and no request to another host."""
    opened, errors, asked = browser.new_page(viewport={"width": 1280, "height": 900}), [], []
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(server.address)
    opened.wait_for_selector("#plot .line")
    yield opened
    assert not errors
    assert not [url for url in asked if not url.startswith((server.address, "blob:", "data:"))]


@pytest.mark.parametrize("recipe", [RUN, MESHES], ids=["NeRF", "DMTet"])
def test_page(page, run):
    page.wait_for_function(LOADED, timeout=120_000)
    _settings_are_said(page)
    _curves_can_be_read(page)
    _pictures_can_be_chosen(page)
    _particles_can_be_turned(page)
    _turntables_are_made(page)
    _it_fits(page)
    assert len(list((run.path / "view").glob("*/particle_*.glb"))) == 2


def _settings_are_said(page):
    assert page.inner_text("#name") == "scenes/0"
    assert page.inner_text("#prompt") == "a red mug"
    assert "a tree" in page.inner_text("#conditions")
    assert "finished: 4 steps" in page.inner_text("#step")
    assert "SDS" in page.inner_text("#settings")
    assert "seconds" in page.inner_text("#metrics")


def _curves_can_be_read(page):
    line = page.get_attribute("#plot .line", "d")
    assert line.count("L") == 3  # four steps
    page.check("#log")
    assert page.get_attribute("#plot .line", "d") != line
    page.focus("#plot")
    page.keyboard.press("Home")
    assert page.inner_text("#reading").startswith("step 0: ")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#reading").startswith("step 1: ")
    page.hover("#plot", position={"x": 5, "y": 100})
    assert page.inner_text("#reading").startswith("step 0: ")
    page.select_option("#curve", "objective/t")
    assert page.get_attribute("#plot .line", "d") != line


def _pictures_can_be_chosen(page):
    assert page.get_attribute("#picture", "src") == "/files/pictures/step_000004.png"
    page.focus("#slider")
    page.keyboard.press("ArrowLeft")
    assert page.get_attribute("#picture", "src") == "/files/pictures/step_000002.png"
    assert page.inner_text("#when") == "step 2"
    page.wait_for_function("() => document.querySelector('#picture').naturalWidth > 0")


def _particles_can_be_turned(page):
    views = page.locator("model-viewer")
    before = [views.nth(i).screenshot() for i in range(2)]
    angle = "view => view.getCameraOrbit().theta"
    start = views.nth(0).evaluate(angle)
    box = views.nth(0).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=4)
    page.mouse.up()
    turned = f"""start => [...document.querySelectorAll("model-viewer")].every(
      view => Math.abs(({angle})(view) - start) > 0.2)"""
    page.wait_for_function(turned, arg=start, timeout=20_000)  # both: they turn together
    assert all(views.nth(i).screenshot() != before[i] for i in range(2))


def _turntables_are_made(page):
    page.check("input[value=webp]")
    turning = "() => document.querySelectorAll('.stage img').length === 2 && " + (
        "[...document.querySelectorAll('.stage img')].every(image => image.naturalWidth === 192)"
    )
    page.wait_for_function(turning, timeout=120_000)


def _it_fits(page):
    for width in (1280, 700, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_run_that_is_training_is_followed(page, run):
    """New metrics and pictures appear automatically, meshes of a new checkpoint on request."""
    log = next(run.path.glob("logs/version_*/metrics.csv"))
    row = log.read_text().splitlines()[1].split(",")
    names = log.read_text().splitlines()[0].split(",")
    row[names.index("step")] = "9"
    with log.open("a") as file:
        file.write(",".join(row) + "\n")
    shutil.copy(run.path / "pictures/step_000004.png", run.path / "pictures/step_000010.png")
    page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_function("() => document.querySelector('#when').textContent === 'step 10'", timeout=20_000)
    assert page.get_attribute("#plot .line", "d").count("L") == 4
    shutil.copy(run.path / "checkpoints/last.ckpt", run.path / "checkpoints/newer.ckpt")
    page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_selector("#newer:visible", timeout=20_000)


def test_failed_exports_are_reported_on_the_page(browser, server, monkeypatch):
    from scoredistill.cli.viewer import workshop

    message = "no surface at level 5: values range from 0 to 1; try 0.5"

    def export(words):
        raise ValueError(message)

    monkeypatch.setattr(workshop, "export", export)
    opened = browser.new_page()
    opened.goto(server.address)
    opened.wait_for_selector(".stage .wrong", timeout=60_000)
    assert opened.locator(".stage .wrong").first.inner_text() == message


def test_a_run_without_results(browser, tmp_path):
    run = RunFolder(tmp_path / "0")
    run.path.mkdir()
    recipe = {"model": {"loss": {"class_path": "SDS"}}, "trainer": {"max_steps": 10}}
    run.config.write_text(json.dumps(recipe) + "\n...\n")
    assert last_checkpoint(run) is None
    with Server("127.0.0.1", 0, run) as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        opened = browser.new_page()
        opened.goto(started.address)
        opened.wait_for_function("() => document.querySelector('#step').textContent.startsWith('step 0 of 10')")
        assert "no metrics logged yet" in opened.inner_text("#reading")
        assert not opened.is_visible("#scenes")
        assert not opened.is_visible("#pictures")
        opened.context.set_offline(True)
        opened.wait_for_function("() => !document.querySelector('#trouble').hidden", timeout=20_000)
        assert "has it been stopped?" in opened.inner_text("#trouble")
        started.shutdown()
        thread.join()
