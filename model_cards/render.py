"""Write the README.md of artifact folders from what was measured.

    python -m model_cards.render --recipe recipes/demo.yaml --dataset DIR --evaluation DIR --student DIR

Only the cards of the folders given are written (--dataset, --base, --teacher, --student, --space);
--evaluation is read for the teacher's and the student's. Without --base the teacher's card links the base
model that the adapter names. All are rendered before the first is written, so that a folder that cannot be
described leaves every card as it was.
"""

import argparse
import os
from dataclasses import fields
from pathlib import Path

from eisv_lumen.artifact import CARD
from eisv_lumen.errors import ResourceError, exit_with_reason
from model_cards.cards import CARDS, Folders
from model_cards.names import ReleaseNames


def render(folders: Folders, names: ReleaseNames) -> dict[Path, str]:
    """The card of every folder given that is published, by the path of its README.md.

    Raises:
        ArtifactError: A folder is of another kind or lacks measurements that its card needs.
    """
    return {
        Path(folder) / CARD: card(folders, names)
        for kind, card in CARDS.items()
        if (folder := getattr(folders, kind)) is not None
    }


def write(path: Path, text: str) -> bool:
    """Write a card atomically; returns whether that changed anything.

    Raises:
        ResourceError: The folder is not writable or the disk is full.
    """
    if path.is_file() and path.read_bytes() == text.encode():
        return False
    # Beside the folder: a file left inside by a kill would make the artifact look altered.
    partial = path.parent.with_name(f".{path.parent.name}.card-partial")
    try:
        with partial.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ResourceError(
            found=f"{path}: {error.strerror or type(error).__name__}",
            expected="a writable folder with free space",
            next="mend its permissions or free some space, then run the same command again",
        ) from error
    return True


def main(arguments: list[str] | None = None) -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m model_cards.render", description=__doc__.split("\n")[0])
    parser.add_argument("--recipe", type=Path, default=Path("recipes/demo.yaml"))
    for field in fields(Folders):
        parser.add_argument(f"--{field.name}", type=Path, metavar="DIR")
    options = vars(parser.parse_args(arguments))
    names = ReleaseNames.read(options.pop("recipe"))
    cards = render(Folders(**options), names)
    if not cards:
        parser.error("give at least one artifact folder, e.g. --dataset DIR")
    for path, text in cards.items():
        changed = write(path, text)
        print(f"card {path}: {'written from what was measured' if changed else 'unchanged'}", flush=True)


if __name__ == "__main__":
    exit_with_reason(main)
