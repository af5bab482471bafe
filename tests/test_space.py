"""The Space: built as a folder, started from it with nothing but its wheel, and used in a real browser."""

import ast
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet

from eisv_lumen import artifact
from eisv_lumen.errors import ArtifactError, ConfigurationError, InputError
from eisv_lumen.layouts import DATASET
from eisv_lumen.metrics import COLUMNS
from eisv_lumen.rules import Rules
from eisv_lumen.shapes import classify
from eisv_lumen.synthetic import generate
from eisv_lumen.vocabulary import N_SHAPES, SHAPE_ID, SHAPES
from eisv_lumen.windows import Windows
from hub import build_space
from model_cards.cards import Folders, space_card
from model_cards.names import ReleaseNames
from tests.random_models import random_student

ROOT = Path(__file__).resolve().parents[1]
EXPLORER = ROOT / "spaces" / "explorer"
SCREENSHOTS = ROOT / "artifacts" / "screenshots"
READY_S = 90
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# A process in which eisv_lumen is not installed: site-packages without the .pth file of a checkout.
LAUNCH = (
    "import runpy, sys; sys.path[:0] = [{folder!r}, {libraries!r}]; sys.argv[0] = 'app.py'; "
    "runpy.run_path({app!r}, run_name='__main__')"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("eisv_lumen-*.whl"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A dataset folder with the columns that the Space reads: eight windows of every shape, all synthetic."""
    shapes = np.repeat(np.arange(N_SHAPES), 8)
    windows = generate(shapes, np.random.default_rng(3), cadence=30.0)
    rows = [
        {
            "window_id": f"w{i:03d}",
            "source": f"generator {i % 2}",
            "provenance": "synthetic",
            "scale": "30s",
            "cadence_s": 30.0,
            "times": windows.times[i].tolist(),
            "states": windows.states[i].tolist(),
            "ethical_drift": windows.ethical_drift[i].tolist(),
            "shape": SHAPES[shape],
        }
        for i, shape in enumerate(shapes)
    ]
    out = tmp_path_factory.mktemp("data") / "dataset"
    with artifact.build(out, kind="dataset", configuration={}, metrics_required=False) as work:
        path = work.folder / DATASET.windows("test")
        path.parent.mkdir(parents=True)
        parquet.write_table(pa.Table.from_pylist(rows), path)
        artifact.write_json(work.folder / DATASET.weights, Rules.converged(0)[0].to_dict())
    return out


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory) -> Path:
    cell = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 72}
    unmeasured = {"value": None, "low": None, "high": None, "n": 0}
    row = {**dict.fromkeys(COLUMNS, unmeasured), "coherence": cell}
    out = tmp_path_factory.mktemp("data") / "evaluation"
    with artifact.build(out, kind="evaluation", configuration={}) as work:
        work.metrics = {"table": {"real": {}, "synthetic": {"Rules": row, "Student": row}}}
    return out


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    return random_student(tmp_path_factory.mktemp("sample") / "student")


@pytest.fixture(scope="module")
def space(tmp_path_factory, wheel, dataset, evaluation) -> Path:
    out = tmp_path_factory.mktemp("space") / "space"
    assert build_space.build(
        wheel, out, student="someone/student", revision="v0.1.0", dataset=dataset, evaluation=evaluation
    )
    return out


@pytest.fixture(scope="module")
def explorer_modules():
    """The app's modules, importable as they are beside app.py."""
    sys.path.insert(0, str(EXPLORER))
    try:
        import chart
        import pictures
        import sources

        yield chart, pictures, sources
    finally:
        sys.path.remove(str(EXPLORER))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(folder: Path, home: Path, **environment: str):
    """The Space's address while its app runs, in a process that has the wheel and no checkout."""
    port = free_port()
    code = LAUNCH.format(
        folder=str(folder), app=str(folder / "app.py"), libraries=sysconfig.get_path("purelib")
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HF_ENDPOINT", "HF_TOKEN")}
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", code, "--port", str(port)],
        cwd=home,
        env={**clean, "HF_HOME": str(home), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + READY_S
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"the app did not start:\n{process.communicate()[0]}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address, timeout=5).close()
                break
            time.sleep(0.3)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=20)


def chromium() -> str:
    """Chromium's path; it is installed where it is missing and we may, and the test skipped where not."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None and shutil.which("apt-get") and os.geteuid() == 0:
        for step in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", "-qq", *step], check=False, capture_output=True)
        found = shutil.which("chromium")
    if found is None:
        pytest.skip("no Chromium to open the Space in: install it with apt-get install chromium")
    return found


@contextlib.contextmanager
def browser_page():
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=45_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1320, "height": 960})
        page.set_default_timeout(45_000)
        page.asked_elsewhere, page.failures = [], []

        def only_here(route):
            if re.match(r"(http://127\.0\.0\.1:|data:|blob:)", route.request.url):
                return route.continue_()
            page.asked_elsewhere.append(route.request.url)
            return route.abort()

        page.route("**/*", only_here)
        page.on("pageerror", lambda error: page.failures.append(str(error)))
        try:
            yield page
        finally:
            browser.close()


def spoken(page) -> tuple[str, str, str]:
    """What the student card and the shapes card show: expression, shape, confidence."""
    return (
        page.locator("#student .expression").get_attribute("data-expression"),
        page.locator("#shapes .shape-heard").get_attribute("data-shape"),
        page.locator("#student .gauge").get_attribute("data-confidence"),
    )


@pytest.mark.slow
def test_a_visitor_picks_and_shapes_windows(space, student, tmp_path):
    from playwright.sync_api import expect

    with running(space, tmp_path, EISV_STUDENT=str(student)) as address, browser_page() as page:
        page.goto(address, wait_until="domcontentloaded")
        expect(page.locator("svg.trajectory polyline")).to_have_count(4)
        expression, shape, confidence = spoken(page)
        assert re.fullmatch(r"~\w+~( ~\w+~){0,2}\??", expression) and shape in SHAPES
        assert 0 <= float(confidence) <= 1
        model_speaks = float(confidence) >= 0.6
        expect(page.locator(".voice.speaks .mark")).to_have_text("[M]" if model_speaks else "[R]")
        expect(page.locator("#shapes .bar")).to_have_count(len(SHAPES))
        expect(page.locator("#rules .expression")).to_be_visible()

        # Another recorded window: its description and its trajectory change.
        before = page.locator("#trajectory").inner_html()
        page.locator("#example input").click()
        page.get_by_role("option", name="void rising").first.click()
        expect(page.locator("#trajectory .note")).to_contain_text("void rising")
        assert page.locator("#trajectory").inner_html() != before
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / "space.png", full_page=True)

        # Only some states heard: the rest is drawn faintly.
        page.locator("#heard input[type=number]").fill("8")
        page.locator("#heard input[type=number]").press("Enter")
        expect(page.locator("svg.trajectory circle.faint")).to_have_count(4 * 12)

        # A window of one's own, whose energy falls far: the rules call it by its name.
        page.get_by_role("radio", name="By hand").click()
        page.locator("#heard input[type=number]").fill("20")
        page.locator("#heard input[type=number]").press("Enter")
        expect(page.locator("#rules .note")).to_contain_text("basin transition down")

        # Spoken again, until the draw says something else.
        said = {page.locator("#rules .expression").get_attribute("data-expression")}
        for _ in range(5):
            seed = page.locator("#seed input").input_value()
            page.locator("#speak").click()
            expect(page.locator("#seed input")).not_to_have_value(seed)
            page.wait_for_timeout(400)
            said.add(page.locator("#rules .expression").get_attribute("data-expression"))
        assert len(said) > 1

        page.get_by_role("tab", name="Expression generator").click()
        page.locator("#draw").click()
        expect(page.locator("#frequencies table")).to_be_visible()
        expect(page.locator("#frequencies .note").first).to_contain_text("Your own window")
        page.screenshot(path=SCREENSHOTS / "space-generator.png", full_page=True)

        page.get_by_role("tab", name="Model comparison").click()
        expect(page.locator("#comparison table")).to_have_count(1)
        expect(page.locator("#comparison")).to_contain_text("0.500")
        page.screenshot(path=SCREENSHOTS / "space-comparison.png", full_page=True)
        assert not page.failures
        assert not page.asked_elsewhere
    artifact.verify(space, kind="space")


@pytest.mark.slow
def test_without_its_student_it_says_so_and_the_rules_speak(space, tmp_path):
    from playwright.sync_api import expect

    unreachable = f"http://127.0.0.1:{free_port()}"
    with running(space, tmp_path, HF_ENDPOINT=unreachable) as address, browser_page() as page:
        page.goto(address, wait_until="domcontentloaded")
        expect(page.get_by_role("alert")).to_contain_text("could not be loaded")
        expect(page.locator("#rules .voice.speaks .expression")).to_be_visible()
        expect(page.locator("#student")).to_contain_text("The rules speak instead")


def test_occupied_port(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = subprocess.run(
            [sys.executable, EXPLORER / "app.py"],
            env={**os.environ, "GRADIO_SERVER_PORT": port, "HF_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=READY_S,
        )
    assert result.returncode == 2
    assert f"port {port}" in result.stderr and "next:" in result.stderr and "Traceback" not in result.stderr


def test_what_the_folder_holds(space, wheel, dataset):
    manifest = artifact.verify(space, kind="space")
    assert {"app.py", "style.css", "requirements.txt", "space.json", wheel.name} <= set(manifest.files)
    # Gradio imports a module of this name on the Hub and lets it wrap every handler.
    assert not [name for name in manifest.files if name.split("/")[0].split(".")[0] == "spaces"]
    assert not list(EXPLORER.parent.glob("**/__init__.py"))
    with zipfile.ZipFile(wheel) as archive:
        assert {name.split("/")[0] for name in archive.namelist() if ".dist-info" not in name} == {
            "eisv_lumen"
        }
    lines = (space / "requirements.txt").read_text().split()
    names = {re.split(r"[<>=!~;]", line)[0].lower().replace("-", "_") for line in lines}
    assert names == {"numpy", "onnxruntime", "huggingface_hub", "cryptography"}
    head = yaml.safe_load((space / "README.md").read_text("utf-8").split("---\n")[1])
    assert head["sdk"] == "gradio" and head["models"] == ["someone/student"]
    card = space_card(Folders(space=space), ReleaseNames(namespace="someone"))
    full = yaml.safe_load(card.split("---\n")[1])
    assert (
        full["datasets"] == ["someone/unitares-eisv-trajectories"]
        and full["sdk_version"] == head["sdk_version"]
    )
    assert "54 windows" in card and "at `v0.1.0`" in card


def test_examples_are_the_test_windows(space, dataset):
    shown = json.loads((space / "assets" / "examples.json").read_text())
    rows = {
        row["window_id"]: row for row in parquet.read_table(dataset / DATASET.windows("test")).to_pylist()
    }
    assert {row["shape"] for row in shown} == set(SHAPES)
    for row in shown:
        original = rows[row["window_id"]]
        np.testing.assert_allclose(row["states"], original["states"], atol=1e-5)
        assert row["shape"] == original["shape"]
    # Sources take turns.
    per_source = [row["source"] for row in shown if row["shape"] == "void_rising"]
    assert per_source.count("generator 0") == per_source.count("generator 1")


def test_building_again_changes_nothing(space, wheel, dataset, evaluation):
    before = (space / "manifest.json").stat().st_mtime_ns
    again = {"student": "someone/student", "revision": "v0.1.0", "dataset": dataset, "evaluation": evaluation}
    assert not build_space.build(wheel, space, **again)
    assert (space / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["absent.whl", "text.whl", "other-1-py3-none-any.whl"])
def test_no_wheel(name, tmp_path):
    if name == "text.whl":
        (tmp_path / name).write_text("no wheel")
    elif name.startswith("other"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("other-1.dist-info/METADATA", "Name: other\nVersion: 1\n")
    with pytest.raises(InputError, match="wheel"):
        build_space.build(tmp_path / name, tmp_path / "out", student="a/b")
    assert not (tmp_path / "out").exists()


def test_wrong_inputs_write_nothing(wheel, evaluation, tmp_path):
    with pytest.raises(ConfigurationError, match="student"):
        build_space.build(wheel, tmp_path / "out", student="no repository")
    with pytest.raises(ArtifactError, match="is a evaluation"):
        build_space.build(wheel, tmp_path / "out", student="a/b", dataset=evaluation)
    assert not (tmp_path / "out").exists()


def test_the_app_imports_only_what_the_hub_installs():
    own = {path.stem for path in EXPLORER.glob("*.py")}
    allowed = own | {"eisv_lumen", "gradio", "numpy"} | set(sys.stdlib_module_names)
    for path in EXPLORER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert {name.split(".")[0] for name in names} <= allowed, path


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.floats(0, 0.3), st.sampled_from(SHAPES))
def test_light_is_a_colour(explorer_modules, eis, void, shape):
    _, pictures, _ = explorer_modules
    channels = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", pictures.led_colour(np.array([*eis, void]), shape))
    assert all(0 <= int(channel) <= 255 for channel in channels.groups())


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.booleans(), st.integers(4, 20))
@example([0.0, 0.0, 1.0, 0.0], False, 4)
def test_line_labels_do_not_overlap(explorer_modules, levels, zoom, heard):
    chart, *_ = explorer_modules
    window = Windows.of(np.tile(np.array(levels) * [1, 1, 1, 0.3], (20, 1)), np.arange(20.0))
    svg = chart.trajectory(window, heard, zoom)
    bottom = float(re.search(r'viewBox="0 0 \d+ (\d+)"', svg)[1])
    heights = sorted(float(y) for y in re.findall(r'class="label [^"]*" x="\S+" y="([\d.-]+)"', svg))
    assert len(heights) == 4 and min(np.diff(heights)) >= 16.5
    assert heights[0] > 0 and heights[-1] < bottom


@given(st.floats(0, 0.9), st.floats(0.001, 1.0), st.integers(2, 7))
def test_ticks_are_round_and_inside(explorer_modules, low, width, most):
    chart, *_ = explorer_modules
    found = chart.ticks(low, low + width, (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5), most)
    assert len(found) <= most + 1
    assert all(low - 1e-5 <= tick <= low + width + 1e-5 for tick in found)


def test_windows_shaped_by_hand_are_windows(explorer_modules):
    *_, sources = explorer_modules
    window = sources.by_hand(
        (0.9, 1.0, 0.0, 0.3), (0.2, 1.0, 0.0, 0.0), spike=0.0, noise=0.05, cadence=1.0, seed=1
    )
    window.validate()
    assert SHAPES[classify(window)[0]] == "basin_transition_down"
    spike = sources.by_hand(
        (0.5, 0.6, 0.2, 0.1), (0.5, 0.6, 0.2, 0.1), spike=0.4, noise=0.0, cadence=2.0, seed=1
    )
    assert classify(spike)[0] == SHAPE_ID["entropy_spike_recovery"]


def test_text_from_data_is_escaped(explorer_modules):
    _, pictures, _ = explorer_modules
    table = pictures.evaluation_table(
        "<b>", {"<script>": {"coherence": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3}}}
    )
    assert "<script>" not in table and "<b></b>" not in table
