"""The stages of the main job, in order: which command makes which folder from which."""

from pathlib import Path

from eisv_lumen import __version__
from recipes.configuration import Recipe
from recipes.local_hub import Hub
from recipes.signing import TRUSTED_KEYS, ensure_keys
from recipes.stages import Stage

RELEASE_RECORD = "release/release.json"


def wheel_path(out: Path) -> Path:
    """Where the wheel of eisv_lumen stands after its stage."""
    return out / "wheel" / f"eisv_lumen-{__version__}-py3-none-any.whl"


def building(
    recipe: Recipe, out: Path, sources: list[Path], mappings: list[str], timezone: str
) -> list[Stage]:
    """From sensors to evaluated folders with their cards; the first two need nothing and run side by side."""

    def folders(*names: str) -> list[str | Path]:
        return [part for name in names for part in (f"--{name}", out / name)]

    def stage(name: str, why: str, module: str, *arguments: str | Path) -> Stage:
        return Stage(name, why, ["-m", module, *arguments, "--out", out / name], out / name)

    def config(name: str) -> list[str | Path]:
        return ["--config", recipe.configurations[name]]

    logs = [out / "recording", *map(Path, recipe.sources), *sources]
    seconds, hz = f"{recipe.record.seconds:g}", f"{recipe.record.hz:g}"
    recording = Stage(
        "recording",
        f"records this machine's telemetry for {seconds} s, so that there is something real to hear",
        ["-m", "dataset_builder.record", "--seconds", seconds, "--hz", hz, "--out", out / "recording"],
        out / "recording",
        quiet=True,
    )
    wheel = Stage(
        "wheel",
        "builds the package that the Space and the device install (no torch in it)",
        ["-m", "build", "--wheel", "--no-isolation", "--outdir", wheel_path(out).parent, "."],
        wheel_path(out),
        quiet=True,
    )
    # Where no base is trained, the wheel is what needs nothing either.
    base: list[str | Path] = []
    beside, later = wheel, list[Stage]()
    if recipe.trains_base:
        beside = stage(
            "base",
            "trains a tokenizer and a small Qwen3 model, since the embedded path downloads none",
            "training.pretrain_base",
            *config("base"),
        )
        base, later = folders("base"), [wheel]
    return [
        recording,
        beside,
        stage(
            "dataset",
            "cuts windows from the real logs, fills up rare shapes synthetically, labels and splits them",
            "dataset_builder.build",
            *(part for log in logs for part in ("--source", log)),
            *(part for mapping in mappings for part in ("--mapping", mapping)),
            *("--timezone", timezone),
            *config("dataset"),
        ),
        stage(
            "teacher",
            "teaches the base model the rules' learned voice with a LoRA adapter, and judges it (Gate 1)",
            "training.train_teacher",
            *config("teacher"),
            *folders("dataset"),
            *base,
        ),
        stage(
            "labels",
            "asks the teacher for its exact distribution over expressions, window by window",
            "training.label",
            *folders("dataset", "teacher"),
            *base,
        ),
        stage(
            "student",
            "distils a transformer that hears raw windows, exports it as ONNX and INT8, judges it (Gate 2)",
            "training.train_student",
            *config("student"),
            *folders("dataset", "labels", "teacher"),
        ),
        stage(
            "forest",
            "distils the same labels into trees, the baseline that the student has to beat",
            "training.train_forest",
            *config("forest"),
            *folders("dataset", "labels", "teacher"),
        ),
        stage(
            "evaluation",
            "measures every voice on held-out windows, real and synthetic apart",
            "training.evaluate",
            *folders("dataset", "teacher", "student", "forest"),
            *base,
        ),
        *later,
        stage(
            "space",
            "puts the explorer, example windows and the wheel together as a Gradio Space",
            "hub.build_space",
            *("--wheel", wheel_path(out), "--student", recipe.release.repo_id("student")),
            *folders("dataset", "evaluation"),
        ),
        Stage(
            "report",
            "draws what the dataset holds, for its card",
            ["-m", "dataset_builder.report", out / "dataset"],
            out / "dataset" / "figures" / "shapes.png",
            quiet=True,
        ),
        Stage(
            "cards",
            "writes every card from the measured results",
            [
                "-m",
                "model_cards.render",
                "--recipe",
                recipe.path,
                *folders(*recipe.repositories, "evaluation"),
            ],
            out / "student" / "README.md",
        ),
    ]


def publishing(recipe: Recipe, out: Path, hub: Hub, version: str) -> list[Stage]:
    """From folders to a signed release, a device that speaks it, and a community that loads it."""
    folders = [part for name in recipe.repositories for part in (f"--{name}", out / name)]
    record, trust = out / RELEASE_RECORD, out / "keys" / TRUSTED_KEYS
    keys = ensure_keys(out / "keys")
    # Who uses a public release needs no token, and gets none.
    reading = {"HF_TOKEN": hub.token} if recipe.release.private else {}
    community = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(out / "community-cache"),
        "HF_HUB_DISABLE_XET": "1",
        **reading,
    }

    def command(module: str, *arguments: str | Path) -> list[str | Path]:
        return ["-m", module, "--recipe", recipe.path, *arguments]

    return [
        Stage(
            "release",
            f"publishes {version} as {len(recipe.repositories)} repositories, one commit each, tagged last",
            command(
                "hub.release",
                *("--version", version, "--endpoint", hub.url, "--yes"),
                *keys,
                *folders,
                *("--out", record.parent),
            ),
            record,
            environment=hub.environment,
        ),
        Stage(
            "device",
            "installs the wheel alone in an empty environment, pulls the release, verifies it and speaks",
            command(
                "recipes.device",
                *("--hub", hub.url, "--wheel", wheel_path(out), "--trust", trust, "--release", record),
                *("--out", out / "device.json"),
            ),
            out / "device.json",
            environment=reading,
        ),
        Stage(
            "community",
            "loads what was published with datasets, peft + transformers and onnxruntime, and compares",
            command(
                "recipes.community",
                *("--hub", hub.url, "--release", record),
                *folders,
                *("--out", out / "community.json"),
            ),
            out / "community.json",
            environment=community,
        ),
    ]
