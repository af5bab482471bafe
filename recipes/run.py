"""The whole main job, stage by stage: `make demo`.

    python -m recipes.run --recipe recipes/demo.yaml --out artifacts/demo [--source LOG...] [--hub URL]

Finished stages are skipped and a killed one goes on where it was; a run with nothing to do changes nothing.
"""

import argparse
import sys
from pathlib import Path

from dataset_builder.mapping import read_mapping
from eisv_lumen.errors import SourceError, exit_with_reason
from recipes.configuration import Recipe
from recipes.local_hub import open_hub
from recipes.plan import building, publishing
from recipes.stages import Stages, leave_on_kill, peak_memory_mb
from recipes.summary import print_summary, write_summary
from recipes.version import plan_version


def main() -> None:
    """Run a recipe from sensors to a speaking device."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/demo.yaml"))
    parser.add_argument("--out", type=Path, default=Path("artifacts/demo"))
    parser.add_argument("--source", type=Path, nargs="+", default=[], help="sensor logs or anima.db files")
    parser.add_argument(
        "--mapping", nargs="+", default=[], help="NAME=FILE: what the columns of the source NAME are"
    )
    parser.add_argument("--timezone", default="UTC", help="zone of times in the sources that name none")
    parser.add_argument("--hub", help="publish to this Hub instead of the local one")
    arguments = parser.parse_args()
    recipe = Recipe.read(arguments.recipe)
    for source in arguments.source:
        if not source.exists():
            raise SourceError(found=f"no file {source}", expected="a log or database", next="check SOURCE=")
    for mapping in arguments.mapping:
        read_mapping(Path(mapping.partition("=")[2] or mapping))  # before anything is trained
    out: Path = arguments.out
    with open_hub(recipe.hub, arguments.hub) as hub:  # first: a wrong token must not cost a training
        stages = Stages(out / "stages.json")
        recording, base, *steps = building(
            recipe, out, arguments.source, arguments.mapping, arguments.timezone
        )
        total = len(steps) + 5
        stages.run(base, f"1-2/{total}", beside=recording)
        for number, stage in enumerate(steps, 3):
            stages.run(stage, f"{number}/{total}")
        version = plan_version(recipe, out, hub)
        for number, stage in enumerate(publishing(recipe, out, hub, version), len(steps) + 3):
            stages.run(stage, f"{number}/{total}")
        stages.finish()
        summary = write_summary(out, stages, peak_memory_mb())
    print_summary(summary, out, local=hub.local)
    if not stages.worked:
        print("\neverything stood already: nothing was changed")


if __name__ == "__main__":
    leave_on_kill()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    exit_with_reason(main)
