"""The report of a study: statistics, missing results, and files."""

import csv
import io
import json
import re
import shutil

import pytest
from studies.folders import make_study

from scoredistill.studies.report import write_report
from scoredistill.studies.report.plots import Scale
from scoredistill.studies.results import Results, comparisons_of, rows_of
from scoredistill.studies.statistics import mean_of, paired

NASTY = "<script>alert(1)</script>|"
RUNS = {
    "loss=SDS": {
        0: {"spread": 0.1, "modes": 1, "seconds": 4.0},
        1: {"spread": 0.2, "modes": 1},
        2: {"spread": 0.3, "modes": 1},
    },
    "loss=VSD": {0: {"spread": 1.0, "modes": 2}, 1: {"spread": 1.1, "modes": 2}, 2: {"spread": 0.9, "modes": 2}},
    f"loss={NASTY}": {0: {"spread": 0.7}, 1: "the gradient is not finite", 2: None},
}


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "study", RUNS)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_results_and_missing_results(study):
    results = Results(study)
    assert results.cells == list(RUNS)
    assert results.metrics == ["spread", "modes"]
    assert results.values("loss=SDS", "spread") == {0: 0.1, 1: 0.2, 2: 0.3}
    missing = [(m.cell, m.seed, m.what, m.why) for m in results.missing]
    nasty = f"loss={NASTY}"
    assert missing == [
        (nasty, 0, "modes", "is not in metrics.json"),
        (nasty, 1, "the run", "the gradient is not finite"),
        (nasty, 2, "the run", "has not been run"),
    ]
    assert next((seed, path.name) for seed, path in results.pictures("loss=VSD")) == (0, "grid.png")


def test_a_nonfinite_metric_is_missing(tmp_path):
    study = make_study(tmp_path, {"loss=SDS": {0: {"spread": float("nan")}, 1: {"spread": 2.0}}})
    results = Results(study)
    assert results.values("loss=SDS", "spread") == {1: 2.0}
    assert [(m.seed, m.what, m.why) for m in results.missing] == [(0, "spread", "is nan")]


def test_means_and_comparisons_are_those_of_the_statistics(study):
    results = Results(study)
    row = next(row for row in rows_of(results) if (row.cell, row.metric) == ("loss=VSD", "spread"))
    assert row.mean == mean_of([1.0, 1.1, 0.9])
    compared = {(each.cell, each.metric): each for each in comparisons_of(results)}
    assert ("loss=SDS", "spread") not in compared  # the baseline itself
    found = compared["loss=VSD", "spread"]
    assert found.baseline == "loss=SDS"
    assert found.difference == paired([1.0, 1.1, 0.9], [0.1, 0.2, 0.3])
    # Two comparisons have a p-value, of .25 each; the third cell has one seed in common.
    assert found.p == 0.5
    alone = compared[f"loss={NASTY}", "spread"]
    assert alone.seeds == (0,)
    assert alone.p is None
    assert compared[f"loss={NASTY}", "modes"].difference is None


def test_with_several_axes_one_thing_differs_at_a_time(tmp_path):
    cells = {f"loss={loss},scale={scale}": {0: {"x": 1.0}, 1: {"x": 2.0}} for loss in "ab" for scale in ("1", "7")}
    found = comparisons_of(Results(make_study(tmp_path, cells)))
    assert [(each.cell, each.axis, each.baseline) for each in found] == [
        ("loss=a,scale=7", "scale", "loss=a,scale=1"),
        ("loss=b,scale=1", "loss", "loss=a,scale=1"),
        ("loss=b,scale=7", "loss", "loss=a,scale=7"),
        ("loss=b,scale=7", "scale", "loss=b,scale=1"),
    ]


def test_files(study):
    page = write_report(study)
    assert page == study / "report.html"
    summary = rows((study / "summary.csv").read_text())
    assert len(summary) == 6
    assert summary[1]["cell"] == "loss=VSD"
    assert float(summary[1]["mean"]) == pytest.approx(1.0)
    assert summary[2]["n"] == "1"
    results = rows((study / "results.csv").read_text())
    assert len(results) == 18
    failed = next(row for row in results if row["state"] == "failed")
    assert (failed["value"], failed["message"]) == ("", "the gradient is not finite")
    assert len(rows((study / "comparisons.csv").read_text())) == 4
    markdown = (study / "report.md").read_text()
    assert "scoredistill ablate tried.yaml --output" in markdown
    assert "| loss=VSD | 3 | 1 ± 0.058 |" in markdown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\| |" in markdown
    assert "With 3 seeds no single p can be below 0.25" in markdown


def test_the_page_is_self_contained_and_escapes_its_content(study):
    text = write_report(study).read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert text.count("data:image/webp") == 3
    assert len(text) < 200_000
    for said in (
        "What is missing",
        "the gradient is not finite",
        "Learning curves",
        "Cost of a run",
        "scoredistill 1.2",
    ):
        assert said in text


def test_metrics_over_a_numeric_axis_are_drawn(tmp_path):
    cells = {
        f"loss={loss},scale={scale}": {seed: {"x": float(scale) + seed} for seed in range(3)}
        for loss in ("SDS", "VSD")
        for scale in ("1", "10", "100")
    }
    text = write_report(make_study(tmp_path, cells)).read_text()
    assert text.count("<title>x over scale</title>") == 1
    assert "x over loss" not in text
    points = re.search(r"<title>x over scale</title>.*?<polyline points=\"([^\"]+)\"", text)[1]
    places = [float(point.split(",")[0]) for point in points.split()]
    # Evenly: logarithmic. Each place is rounded to a tenth, and the middle one counts twice.
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], rel=0, abs=4 * 0.05 + 1e-9)


def test_a_study_that_has_just_begun_has_a_report(tmp_path):
    text = write_report(make_study(tmp_path, {"loss=SDS": {0: None}, "loss=VSD": {0: None}})).read_text()
    assert "0 of 2 runs" in text
    assert text.count("has not been run") == 2


def test_an_invalid_record_is_an_error(tmp_path):
    with pytest.raises(OSError, match=r"study\.json"):
        write_report(tmp_path)
    (tmp_path / "study.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(ValueError, match="is not a record of a study"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(("low", "high", "log"), [(0, 1, False), (-3, 1e4, False), (2, 2, False), (1e-3, 50, True)])
def test_scales_have_round_ticks_within_them(low, high, log):
    scale = Scale.around([low, high], 10, 110, log)
    assert 10 <= scale(low) <= scale(high) <= 110
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 12
    assert all(10 <= scale(tick) <= 110 + 1e-6 for tick in ticks)
    assert scale(scale.low) == 10
    assert scale(scale.high) == pytest.approx(110)


@pytest.mark.slow
def test_the_page_in_a_browser(study):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on PATH")
    address, errors, asked = write_report(study).as_uri(), [], []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.context.set_offline(True)
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        assert page.inner_text("h1") == "tried"
        assert page.locator("section.missing tbody tr").count() == 3
        assert page.locator("img").evaluate_all("images => images.every(image => image.naturalWidth > 0)")
        shown = "() => [...document.querySelectorAll('[data-curve]')].filter(f => !f.hidden).map(f => f.dataset.curve)"
        assert page.evaluate(shown) == ["loss"]
        page.select_option("#curve", "critic/loss")
        assert page.evaluate(shown) == ["critic/loss"]
        for width in (1280, 700, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
    assert not errors
    assert not [url for url in asked if not url.startswith((address, "data:"))]


def text_of(page: str) -> str:
    return re.sub(r"<(style|script|svg).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)


@pytest.mark.parametrize("seeds", [1, 2, 3, 6])
def test_a_report_shows_only_available_statistics(tmp_path, seeds):
    """Standard errors and tests need two seeds, intervals and effect sizes three."""
    cells = {
        f"loss={loss}": {seed: {"x": scale * 1.1**seed} for seed in range(seeds)} for loss, scale in LOSSES.items()
    }
    study = make_study(tmp_path, cells)
    page = write_report(study)
    summary = rows((study / "summary.csv").read_text())
    comparisons = rows((study / "comparisons.csv").read_text())
    there = {
        "standard error": any(row["standard_error"] for row in summary),
        "interval": any(row["low"] for row in summary),
        "effect size": any(row["effect"] for row in comparisons),
        "sign-flip test": any(row["p"] for row in comparisons),
    }
    assert list(there.values()) == [seeds > 1, seeds > 2, seeds > 2, seeds > 1]
    denied = {"standard error": "neither standard errors nor intervals", "interval": "there are no intervals"}
    for text in (text_of(page.read_text()), (study / "report.md").read_text()):
        for said in denied.values():
            text = text.replace(said, "")
        for word, has in there.items():
            assert (word in text) == has, (word, text)
        for column, word in {"95% interval": "interval", "its interval": "interval"}.items():
            assert (column in text) == there[word]
    columns = (study / "report.md").read_text().partition("\n| cell | n | mean |")[2].partition("\n")[0]
    expected = " against | difference |" if seeds == 1 else " against | difference | p |"
    assert columns == (" 95% interval | against | difference | its interval | d | p |" if seeds > 2 else expected)


LOSSES = {"SDS": 1.0, "VSD": 2.0}


def test_the_power_of_the_tests_is_stated_for_the_compared_seeds(tmp_path):
    """Of six requested seeds, two have finished in both cells."""
    six = dict.fromkeys(range(6))
    study = make_study(
        tmp_path, {"loss=SDS": {**six, 0: {"x": 1.0}, 1: {"x": 2.0}}, "loss=VSD": {**six, 0: {"x": 3.0}, 1: {"x": 3.5}}}
    )
    write_report(study)
    text = (study / "report.md").read_text()
    assert (
        "With 2 seeds no single p can be below 0.5, and no corrected p below .05: compare sizes, or run 6 seeds" in text
    )
    assert "With 6 seeds" not in text


def test_a_report_before_the_first_run_has_ended_says_so(tmp_path):
    write_report(make_study(tmp_path, {"loss=SDS": {0: None, 1: None}, "loss=VSD": {0: None, 1: None}}))
    text = (tmp_path / "report.md").read_text()
    assert "No run has finished: there are no metrics." in text
    assert "interval" not in text
