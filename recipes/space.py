"""Start the explorer on the release that the recipe published: `make space`."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from eisv_lumen.errors import ArtifactError, exit_with_reason
from recipes.configuration import Recipe
from recipes.local_hub import open_hub
from recipes.plan import RELEASE_RECORD
from recipes.stages import leave_on_kill


def main() -> int:
    """Serve the Space as it was published, with the student of the same release, until Ctrl-C."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/demo.yaml"))
    parser.add_argument("--out", type=Path, default=Path("artifacts/demo"))
    parser.add_argument("--port", type=int, default=7860)
    arguments = parser.parse_args()
    record = arguments.out / RELEASE_RECORD
    if not record.exists():
        raise ArtifactError(
            found=f"no release in {arguments.out}", expected="a published release", next="make demo"
        )
    version = json.loads(record.read_text())["version"]
    recipe = Recipe.read(arguments.recipe)
    with open_hub(recipe.hub, None) as hub:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_XET": "1",
            "EISV_STUDENT": recipe.release.repo_id("student"),
            "EISV_STUDENT_REVISION": f"v{version}",
            "GRADIO_SERVER_PORT": str(arguments.port),
        }
        app = subprocess.Popen([sys.executable, arguments.out / "space" / "app.py"], env=environment)
        try:
            return app.wait()
        except KeyboardInterrupt:
            app.terminate()
            app.wait(timeout=20)
            return 0


if __name__ == "__main__":
    leave_on_kill()
    exit_with_reason(main)
