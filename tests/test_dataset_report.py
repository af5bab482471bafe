"""A dataset's report: real Parquet in, PNG files out, the same bytes each time, and fit to be published.

The datasets here are written by hand, with as many sources as a test wants; the last test draws a built one.
"""

import itertools
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import get_session
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from dataset_builder import report
from dataset_builder.drawing import (
    MAX_BYTES,
    SHAPE_COLORS,
    Bar,
    Histogram,
    draw_dropped,
    draw_histograms,
    draw_shares,
    duration,
    fold,
    plain_style,
    png,
)
from dataset_builder.report import FIGURES, Rows, write_report
from eisv_lumen import artifact, release
from eisv_lumen.errors import ArtifactError, ResourceError, VerificationError
from eisv_lumen.layouts import DATASET, HELD_OUT_SYNTHETIC, SPLITS
from eisv_lumen.signing import SigningKey
from eisv_lumen.versions import Version
from eisv_lumen.vocabulary import SHAPES
from hub.publication import publish_release
from hub.settings import ReleaseSettings
from hub.validation import validate
from tests.release_artifacts import (
    NAMES,
    REPO_IDS,
    rebuild,
    running_hub,
)

ROOT = Path(__file__).parents[1]
SIGNATURE = b"\x89PNG\r\n\x1a\n"
NEW_KEYS = ("cadence", "gaps", "label_stability_by_source", "growth")
LONG = "a-very-long-name-of-a-raspberry-pi-that-stands-on-the-desk-in-the-living-room-{:02d}"


def names(count: int) -> list[str]:
    return [LONG.format(i) if i % 3 == 2 else f"pi{i}" for i in range(count)]


def window_rows(sources: list[str], seed: int = 0, per_source: int = 40) -> list[dict]:
    """Random walks; the shapes with an odd number are synthetic alone."""
    rng = np.random.default_rng(seed)
    rows = []
    for source in [*sources, "synthetic"]:
        for i in range(per_source):
            shape = SHAPES[i % 9] if source == "synthetic" else SHAPES[2 * (i % 5)]
            cadence = (0.5, 30.0, 300.0)[(i + i // 9) % 3]
            rows.append(
                {
                    "window_id": f"{source}:{i}",
                    "source": source,
                    "provenance": "synthetic" if source == "synthetic" else "real",
                    "scale": "native" if cadence == 0.5 else f"{cadence:g}s",
                    "cadence_s": cadence,
                    "times": (np.arange(20) * cadence).tolist(),
                    "states": np.clip(0.2 + np.cumsum(rng.normal(0, 0.01, (20, 4)), 0), 0, 0.3).tolist(),
                    "shape": shape,
                }
            )
    return [rows[i] for i in rng.permutation(len(rows))]


def counted(rows: list[dict]) -> dict[str, int]:
    return {shape: sum(row["shape"] == shape for row in rows) for shape in SHAPES}


def measurements(sources: list[str]) -> dict:
    edges = np.geomspace(1e-3, 1e6, 46).tolist()
    steps = [[0] * 45 for _ in sources]
    for number, counts in enumerate(steps):
        counts[15 + number % 12] = 10 ** (number % 6)
        counts[33] = number % 3
    cut = {s: {scale: dict.fromkeys(SHAPES[: 2 + i % 8], 7 * i) for scale in ("native", "30s", "300s")}
           for i, s in enumerate(sources)}  # fmt: skip
    return {
        "counts": {},
        "shapes": {},
        "cut": cut,  # the first source has no window at all
        "dropped": {"gap": 12345, "impossible pressure_hpa": 3, "window beyond the split's size": 800},
        "sources": [
            {"name": sources[0], "dropped": {"gap": 12345}, "values": {"impossible pressure_hpa": 3}},
            "a source that tells nothing else",
        ],
        "label_stability": {"robust": 0.99, "published": 0.9, "noise": 0.001, "n": 100},
        "cadence": {s: {"edges_s": edges, "counts": c} for s, c in zip(sources, steps, strict=True)},
        "gaps": {
            s: {"edges_s": edges, "counts": [0] * 33 + c[33:]} for s, c in zip(sources, steps, strict=True)
        },
        "label_stability_by_source": {
            s: {"robust": 1 - 0.002 * (i % 9), "published": 1 - 0.02 * i / len(sources), "n": 50 * i + 1}
            for i, s in enumerate(sources)
        },
        "growth": None,
    }  # fmt: skip


def make_dataset(folder: Path, sources: list[str], metrics: dict | None = None, **options) -> Path:
    """A dataset folder with real Parquet files, several row groups each."""
    rows = window_rows(sources, **options)
    with artifact.build(folder, kind="dataset", configuration={"sources": sources}) as work:
        assert work is not None
        for number, split in enumerate(SPLITS):
            path = work.folder / DATASET.windows(split)
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows[number::3]), path, row_group_size=7)
        work.metrics = measurements(sources) if metrics is None else metrics
    return folder


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dataset_builder.report", str(folder)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def chunks(content: bytes) -> list[bytes]:
    """Kinds of a PNG's chunks."""
    kinds, at = [], len(SIGNATURE)
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kinds.append(content[at + 4 : at + 8])
        at += 12 + length
    return kinds


@pytest.fixture
def blank_examples(monkeypatch):
    """An empty picture of examples, which take as long to draw as all other figures: for tests of files."""
    monkeypatch.setattr(report, "draw_examples", lambda *_: Figure())


class TestFiles:
    def test_all_figures_are_small_pictures_and_the_dataset_stays_whole(self, tmp_path):
        folder = make_dataset(tmp_path / "ds", names(12))
        manifest = (folder / artifact.MANIFEST).read_bytes()
        drawn = write_report(folder)
        assert [path.name for path in drawn] == list(FIGURES)
        assert sorted(p.name for p in (folder / "figures").iterdir()) == sorted(FIGURES)
        for path in drawn:
            content = path.read_bytes()
            assert content.startswith(SIGNATURE) and len(content) <= MAX_BYTES
            # No time, no program, no path in it.
            assert set(chunks(content)) <= {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
            with Image.open(path) as picture:
                assert 1000 <= picture.width <= 1300
                assert picture.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
                assert len(picture.convert("RGB").getcolors(1 << 16)) > 8
        assert (folder / artifact.MANIFEST).read_bytes() == manifest
        artifact.verify(folder, kind="dataset")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["ds"]

    def test_the_same_dataset_gives_the_same_bytes_whatever_the_user_has_set(self, tmp_path):
        folder = make_dataset(tmp_path / "ds", names(3))
        (tmp_path / "mpl").mkdir()
        (tmp_path / "mpl" / "matplotlibrc").write_text(
            "font.size: 20\naxes.facecolor: black\nsavefig.dpi: 30\nlines.linewidth: 9\ntext.usetex: True\n"
        )
        seen = []
        for number in range(2):
            plain = {"PYTHONHASHSEED": str(number)}
            done = run(folder, **(plain | {"MPLCONFIGDIR": str(tmp_path / "mpl")} if number else plain))
            assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
            seen.append({name: (folder / "figures" / name).read_bytes() for name in FIGURES})
            (folder / "figures" / "shapes.png").unlink()
        assert seen[0] == seen[1]
        assert seen[0]["windows.png"] != windows_of_another(tmp_path)

    @pytest.mark.usefixtures("blank_examples")
    def test_what_stands_is_not_written_again(self, tmp_path):
        folder = make_dataset(tmp_path / "ds", names(1))
        before = {path: path.stat().st_mtime_ns for path in write_report(folder)}
        assert {path: path.stat().st_mtime_ns for path in write_report(folder)} == before

    @pytest.mark.usefixtures("blank_examples")
    def test_figures_whose_numbers_are_not_there_are_left_out_and_taken_away(self, tmp_path):
        folder = make_dataset(tmp_path / "ds", names(2))
        write_report(folder)
        (folder / "figures" / "by-hand.png").write_bytes(b"mine")
        metrics = json.loads((folder / "metrics.json").read_text())
        rebuild(
            folder,
            {"metrics.json": json.dumps({k: metrics[k] for k in metrics if k not in NEW_KEYS}).encode()},
        )
        assert [p.stem for p in write_report(folder)] == ["shapes", "windows", "dropped", "scales"]
        assert not (folder / "figures" / "cadence.png").exists()
        assert (folder / "figures" / "by-hand.png").read_bytes() == b"mine"
        rebuild(folder, {"metrics.json": b"{}"})
        assert [p.stem for p in write_report(folder)] == ["shapes", "windows"]

    def test_a_picture_that_is_too_rich_gives_up_colours_and_pixels(self):
        rng = np.random.default_rng(0)
        histograms = {
            title: {
                f"source {i}": Histogram(np.geomspace(1e-3, 1e6, 3001), rng.integers(0, 10**6, 3000))
                for i in range(12)
            }
            for title in ("All steps", "Gaps")
        }
        with plain_style():
            assert len(png(draw_histograms(histograms))) <= MAX_BYTES


def windows_of_another(tmp_path: Path) -> bytes:
    folder = make_dataset(tmp_path / "other", names(3), seed=1)
    with plain_style():
        drawn = report.figures(artifact.read_metrics(folder), Rows.read(folder))
        return next(png(figure) for name, figure in drawn if name == "windows.png")


@pytest.mark.usefixtures("blank_examples")
class TestRefusals:
    def test_folders_that_are_no_dataset(self, tmp_path):
        assert run(tmp_path / "absent").returncode == 2
        (tmp_path / "metrics.json").write_text("{}")
        refused = run(tmp_path)
        assert refused.returncode == 2 and "expected: a dataset folder" in refused.stderr
        assert not (tmp_path / "figures").exists()

    def test_parquet_that_is_none_or_lacks_a_column(self, tmp_path):
        folder = make_dataset(tmp_path / "ds", names(1))
        path = folder / DATASET.windows("test")
        table = pq.read_table(path)
        pq.write_table(table.drop(["provenance"]), path)
        with pytest.raises(ArtifactError, match="test.parquet"):
            write_report(folder)
        path.write_bytes(b"PAR1")
        with pytest.raises(ArtifactError, match="test.parquet"):
            write_report(folder)
        assert not (folder / "figures").exists()

    @pytest.mark.parametrize("edges", [[1.0, 2.0], [3.0, 2.0, 1.0], []])
    def test_histograms_that_do_not_fit(self, tmp_path, edges):
        metrics = {"cadence": {"a": {"edges_s": edges, "counts": [1, 2]}}}
        folder = make_dataset(tmp_path / "ds", ["a"], metrics)
        with pytest.raises(ArtifactError, match="cadence of 'a'"):
            write_report(folder)
        assert not (folder / "figures").exists()

    def test_a_place_that_cannot_be_written(self, tmp_path):
        folder = make_dataset(tmp_path / "ds", ["a"])
        (folder / "figures").write_text("in the way")
        with pytest.raises(ResourceError, match="figures"):
            write_report(folder)


class TestNumbers:
    def test_counts_are_those_of_the_rows(self, tmp_path):
        rows = window_rows(names(3))
        found = Rows.read(make_dataset(tmp_path / "ds", names(3)))
        for number, split in enumerate(SPLITS):
            for provenance in ("real", "synthetic"):
                wanted = [row for row in rows[number::3] if row["provenance"] == provenance]
                assert found.count(split=split, provenance=provenance) == counted(wanted)
        for source in names(3):
            wanted = [row for row in rows if row["source"] == source and row["scale"] == "30s"]
            assert found.count(source=source, scale="30s") == counted(wanted)
        assert found.sources("real") == sorted(names(3)) and found.sources("synthetic") == ["synthetic"]

    def test_examples_are_rows_of_their_shape_real_ones_first(self, tmp_path):
        folder = make_dataset(tmp_path / "ds", names(3))
        rows = Rows.read(folder)
        by_states = {np.float64(row["states"]).tobytes(): row for row in window_rows(names(3))}
        for shape in SHAPES:
            found = report.examples(rows, shape)
            assert len(found) == 4
            real = bool(rows.count(provenance="real")[shape])
            assert [example.synthetic for example in found] == [not real] * 4
            for example in found:
                row = by_states[example.states.tobytes()]
                assert (row["shape"], row["source"], row["cadence_s"]) == (
                    shape,
                    example.source,
                    example.cadence_s,
                )
                assert row["times"] == example.times.tolist()
            assert len({example.states.tobytes() for example in found}) == 4
            assert len({example.cadence_s for example in found}) >= 2
            assert not real or len({example.source for example in found}) >= 2

    def test_synthetic_examples_fill_up_what_real_ones_lack(self, tmp_path):
        folder = make_dataset(tmp_path / "ds", ["a"], per_source=6)
        found = report.examples(Rows.read(folder), SHAPES[2])
        assert [example.synthetic for example in found] == [False, True]
        assert report.examples(Rows.read(folder), SHAPES[7]) == []

    def test_what_was_left_out_is_told_apart_and_adds_up(self):
        metrics = measurements(["a", "b"])
        (_, rows), (_, values), (heading, windows) = report.left_out(metrics)
        assert dict(rows) == {"gap": 12345} and dict(values) == {"impossible pressure_hpa": 3}
        assert heading == "Windows" and dict(windows) == {"window beyond the split's size": 800}
        assert rows + values + windows == metrics["dropped"]
        # An older dataset does not say in which source it was.
        assert dict(report.left_out({"dropped": {"gap": 3}})[2][1]) == {"gap": 3}

    def test_many_bars_are_folded_without_losing_a_window(self):
        bars = [Bar(str(i), {SHAPES[i % 9]: i}) for i in range(40)]
        folded = fold(bars)
        assert len(folded) == 12 and folded[-1].name == "29 others"
        assert [bar.name for bar in folded[:-1]] == [str(i) for i in range(29, 40)]
        total = sum(sum(bar.counts.values()) for bar in folded)
        assert total == sum(range(40))
        assert fold(bars[:12]) == bars[:12]

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0.02, "20 ms"), (0.5, "0.5 s"), (9.49, "9.5 s"), (59, "59 s"), (60, "1 min"), (5700, "1.6 h"),
         (86400, "24 h"), (864000, "10 days"), (0, "0 s")],
    )  # fmt: skip
    def test_durations(self, seconds, text):
        assert duration(seconds) == text


SIMULATED_BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}  # fmt: skip
"""Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB."""


def lab(color: str, seen_by: np.ndarray) -> np.ndarray:
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(seen_by) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


class TestLook:
    @pytest.mark.parametrize("blindness", SIMULATED_BLINDNESS)
    def test_shapes_are_told_apart_with_any_eyes(self, blindness):
        """Twice the distance at which two colours side by side are called different at a glance."""
        assert list(SHAPE_COLORS) == list(SHAPES)
        seen = [lab(color, SIMULATED_BLINDNESS[blindness]) for color in SHAPE_COLORS.values()]
        for (a, first), (b, second) in itertools.combinations(zip(SHAPES, seen, strict=True), 2):
            assert np.linalg.norm(first - second) > 15, (a, b)
        beside = [np.linalg.norm(first - second) for first, second in itertools.pairwise(seen)]
        assert min(beside) > 20

    @pytest.mark.parametrize("count", [1, 3, 12, 40])
    def test_no_text_lies_on_another_or_outside(self, tmp_path, count):
        folder = make_dataset(tmp_path / "ds", names(count), per_source=max(3, 120 // count))
        self.check(artifact.read_metrics(folder), Rows.read(folder), expected=len(FIGURES))

    def test_nor_with_odd_names_and_large_numbers(self, tmp_path):
        sources = ["cost $5 and $6_{x}", "温度" * 30, "a\nb\tc", "W" * 60]
        folder = make_dataset(tmp_path / "ds", sources)
        metrics = artifact.read_metrics(folder)
        for source in sources:
            metrics["cut"][source] = {"native": {SHAPES[0]: 10**9}, "30s": {SHAPES[8]: 1}, "300s": {}}
            metrics["cadence"][source]["counts"][20] = 10**9
            metrics["label_stability_by_source"][source] = {"robust": 0.0, "published": 1.0, "n": 10**9}
        metrics["sources"][0]["dropped"] = {f"{'reason ' * 12}{i}": 10**i for i in range(10)}
        self.check(metrics, Rows.read(folder), expected=len(FIGURES))

    def test_nor_where_nothing_is_counted(self, tmp_path):
        folder = make_dataset(tmp_path / "ds", ["a"], per_source=1)
        metrics = artifact.read_metrics(folder)
        for key in ("cadence", "gaps"):
            metrics[key]["a"]["counts"] = [0] * 45
        metrics["dropped"], metrics["sources"] = {"gap": 0}, []
        self.check(metrics, Rows.read(folder), expected=len(FIGURES) - 1)

    def check(self, metrics: dict, rows: Rows, expected: int) -> None:
        drawn = 0
        with plain_style():
            for name, figure in report.figures(metrics, rows):
                canvas = FigureCanvasAgg(figure)
                figure.set_dpi(130)
                canvas.draw()
                width, height = canvas.get_width_height()
                texts = [
                    text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()
                ]
                boxes = [text.get_window_extent() for text in texts]
                assert len(texts) > 5
                for text, box in zip(texts, boxes, strict=True):
                    inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
                    assert inside, (name, text.get_text(), box)
                for (a, first), (b, second) in itertools.combinations(zip(texts, boxes, strict=True), 2):
                    x = min(first.x1, second.x1) - max(first.x0, second.x0)
                    y = min(first.y1, second.y1) - max(first.y0, second.y0)
                    assert min(x, y) <= 2, (name, a.get_text(), b.get_text())
                drawn += 1
        assert drawn == expected

    def test_bars_without_windows_say_so(self):
        with plain_style():
            figure = draw_shares("t", "n", [("h", [Bar("empty", {}), Bar("full", {SHAPES[0]: 1})])])
            texts = [text.get_text() for text in figure.findobj(Text)]
            rounded = draw_shares("t", "n", [("h", [Bar("a", {SHAPES[0]: 999, SHAPES[1]: 1})])])
            near = [text.get_text() for text in rounded.axes[0].texts]
        assert texts.count("none") == 1 and "100 %" in texts
        assert "> 99 %" in near and "100 %" not in near

    def test_rare_reasons_can_be_seen_beside_frequent_ones(self):
        with plain_style():
            figure = draw_dropped([("Rows", {"a": 1, "b": 10**6}), ("Values", {}), ("Windows", {"c": 0})])
            bars = [patch.get_width() for patch in figure.axes[0].patches]
            assert figure.axes[0].get_xscale() == "log" and len(bars) == 2 and min(bars) > 0
            plain = draw_dropped([("Rows", {"a": 20, "b": 30}), ("Values", {}), ("Windows", {})])
        assert plain.axes[0].get_xscale() == "linear"


KEY = SigningKey.generate()


def with_figure(folders: dict[str, Path], name: str = "shapes.png", content: bytes | None = None) -> Path:
    path = folders["dataset"] / "figures" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        with plain_style():
            content = png(draw_shares("t", "n", [("h", [Bar("a", {SHAPES[0]: 1})])]))
    path.write_bytes(content)
    return path


class TestPublishing:
    def test_figures_go_up_and_are_in_the_signed_manifest(self, folders, tmp_path, tmp_path_factory):
        with running_hub(tmp_path_factory.mktemp("hub")) as hub:
            api, settings = HfApi(endpoint=hub.url, token=hub.token), ReleaseSettings("someone", NAMES)
            config = json.dumps({"base_model_name_or_path": settings.repo_id("base")}).encode()
            rebuild(folders["teacher"], {"adapter_config.json": config})
            path = with_figure(folders)
            card = folders["dataset"] / artifact.CARD
            card.write_text(card.read_text() + "\n![Shares of shapes](figures/shapes.png)\n")

            def publish(version: str):
                return publish_release(api, settings, Version.parse(version), KEY, hub.token, folders, None)

            first, repo = publish("0.1.0"), settings.repo_id("dataset")
            found = api.hf_hub_download(
                repo,
                "figures/shapes.png",
                repo_type="dataset",
                revision="v0.1.0",
                local_dir=tmp_path / "seen",
            )
            assert Path(found).read_bytes() == path.read_bytes()
            recorded = first.manifest.repositories["dataset"].files
            assert recorded == release.record_files(folders["dataset"])
            assert recorded["figures/shapes.png"]["sha256"] == artifact.sha256_file(path)
            assert not publish("0.1.0").changed
            # As a visitor's browser asks for it.
            page = get_session().get(f"{hub.url}/datasets/{repo}", timeout=30).text
            (address,) = re.findall(r'<img[^>]* src="([^"]*shapes.png)"', page)
            shown = get_session().get(f"{hub.url}{address}", timeout=30)
            assert shown.content == path.read_bytes() and shown.headers["Content-Type"] == "image/png"
            # Drawn anew, only the picture is sent; taken away, it goes.
            with_figure(folders, "windows.png")
            path.unlink()
            second = publish("0.2.0")
            assert {r for r in NAMES if first.commits[r] != second.commits[r]} == {"dataset", "student"}
            listed = api.list_repo_files(repo, repo_type="dataset")
            assert "figures/windows.png" in listed and "figures/shapes.png" not in listed

    def test_figures_are_no_part_of_the_manifest(self, folders):
        with_figure(folders)
        validate(folders, REPO_IDS["base"], KEY, None)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("notes.txt", b"text"),
            ("shapes.PNG", None),
            ("shapes.jpg", None),
            ("shapes.png", b"not a picture"),
            ("shapes.png", SIGNATURE + b"cut short"),
            ("shapes.png", b"GIF89a"),
            ("deeper/shapes.png", None),
            ("load.py", b"x"),
            ("rows.pkl", b"x"),
        ],
    )
    def test_anything_else_among_the_figures_is_refused(self, folders, name, content):
        with_figure(folders, name, content)
        with pytest.raises(VerificationError, match="nothing was published"):
            validate(folders, REPO_IDS["base"], KEY, None)

    def test_large_ones_many_and_appended_content_are_refused(self, folders):
        path = with_figure(folders)
        picture = path.read_bytes()
        for content in (picture + b"more", picture[:-12] + bytes(500_000) + picture[-12:]):
            path.write_bytes(content)
            with pytest.raises(VerificationError):
                validate(folders, REPO_IDS["base"], KEY, None)
        path.write_bytes(picture)
        for number in range(20):
            with_figure(folders, f"{number}.png", picture)
        with pytest.raises(VerificationError, match="21 figures"):
            validate(folders, REPO_IDS["base"], KEY, None)

    def test_a_token_in_a_picture_is_found(self, folders):
        path = with_figure(folders)
        path.write_bytes(path.read_bytes()[:-12] + b" hf_" + b"a" * 34 + path.read_bytes()[-12:])
        with pytest.raises(VerificationError, match="token"):
            validate(folders, REPO_IDS["base"], KEY, None)


def test_a_built_dataset_is_drawn(tmp_path):
    """The recording of a real machine that the repository ships, through the builder's own command."""
    source = ROOT / "dataset_builder" / "recordings" / "build-machine.csv.gz"
    config = ROOT / "dataset_builder" / "configs" / "smoke.yaml"
    command = [
        "-m",
        "dataset_builder.build",
        "--source",
        source,
        "--config",
        config,
        "--out",
        tmp_path / "ds",
    ]
    subprocess.run([sys.executable, *map(str, command)], check=True, cwd=ROOT, capture_output=True)
    done = run(tmp_path / "ds")
    assert done.returncode == 0, done.stderr
    artifact.verify(tmp_path / "ds", kind="dataset")
    metrics, rows = artifact.read_metrics(tmp_path / "ds"), Rows.read(tmp_path / "ds")
    for split, provenances in metrics["shapes_by_split"].items():
        for provenance, counts in provenances.items():
            file = HELD_OUT_SYNTHETIC.get(split, split) if provenance == "synthetic" else split
            found = rows.count(split=file, provenance=provenance)
            assert {shape: count for shape, count in found.items() if count} == counts
    drawn = {path.name for path in (tmp_path / "ds" / "figures").iterdir()}
    assert {"shapes.png", "windows.png", "dropped.png", "scales.png"} <= drawn <= set(FIGURES)
