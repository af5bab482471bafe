"""Check that everything a Hub's folder holds is whole: `python -m hub.local.check --root artifacts/hub`."""

import argparse
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pygit2

from eisv_lumen.errors import InputError, exit_with_reason
from hub.local.files import file_at
from hub.local.git import git_command, git_environment
from hub.local.lfs import LfsStore, Pointer
from hub.local.names import KINDS


def problems(root: Path, namespace: str | None = None) -> Iterator[str]:
    """What is wrong with a Hub's repositories; nothing when all is well.

    For each repository: `git fsck`, and that each large file which any commit of any branch or tag
    names is there with its size and sha256. The Hub may run meanwhile.

    Args:
        root: The Hub's folder.
        namespace: Look at its repositories only.

    Raises:
        InputError: When it is none.
    """
    if not (root / "repositories").is_dir():
        raise InputError(
            found=f"{root}, which holds no Hub",
            expected="the root folder of a local Hub",
            next="python -m hub.local.check --root FOLDER",
        )
    for kind in KINDS:
        for path in sorted((root / "repositories" / kind).glob(f"{namespace or '*'}/*.git")):
            for problem in (*_git_problems(path), *_large_file_problems(path)):
                yield f"{kind}/{path.parent.name}/{path.stem}: {problem}"


def _git_problems(path: Path) -> Iterator[str]:
    command = git_command("fsck", "--full", "--strict", "--no-dangling", "--no-progress")
    done = subprocess.run(
        command, cwd=path, env=git_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        yield f"git fsck: {(done.stdout + done.stderr).strip()}"


def _large_file_problems(path: Path) -> Iterator[str]:
    store, repo = LfsStore(path), pygit2.Repository(str(path))
    for pointer in _pointers(repo):
        size = store.size(pointer.oid)
        if size is None:
            yield f"large file {pointer.oid} is missing"
        elif size != pointer.size:
            yield f"large file {pointer.oid} has {size} bytes instead of {pointer.size}"
        else:
            with store.path(pointer.oid).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != pointer.oid:
                    yield f"large file {pointer.oid} has other content"


def _pointers(repo: pygit2.Repository) -> Iterator[Pointer]:
    seen: set[pygit2.Oid] = set()
    trees = [commit.tree for commit in _commits(repo)]
    while trees:
        for entry in trees.pop():
            if entry.id in seen:
                continue
            seen.add(entry.id)
            if isinstance(entry, pygit2.Tree):
                trees.append(entry)
            elif isinstance(entry, pygit2.Blob) and (pointer := file_at(repo, "", entry.id).pointer):
                yield pointer


def _commits(repo: pygit2.Repository) -> Iterator[pygit2.Commit]:
    heads = [reference.peel(pygit2.Commit).id for reference in repo.listall_reference_objects()]
    if heads:
        walker = repo.walk(heads[0])
        for head in heads[1:]:
            walker.push(head)
        yield from walker


def main() -> int:
    """Print what is wrong.

    Returns:
        0 when all is well, 1 otherwise.
    """
    parser = argparse.ArgumentParser(
        prog="python -m hub.local.check", description="Check a local Hub's folder."
    )
    parser.add_argument(
        "--root", type=Path, default=Path("artifacts/hub"), help="folder of all that it stores"
    )
    found = list(problems(parser.parse_args().root))
    print("\n".join(found) if found else "all repositories are whole")
    return 1 if found else 0


if __name__ == "__main__":
    exit_with_reason(main)
