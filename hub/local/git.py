"""Calling git itself: always the same settings, whatever the machine's configuration says."""

import os

_SETTINGS = ("safe.directory=*", "core.fsync=all", "uploadpack.allowFilter=true", "gc.auto=0")


def git_command(*arguments: str) -> list[str]:
    """A git command line that depends on no configuration of user or system."""
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    return ["git", *settings, *arguments]


def git_environment(**more: str) -> dict[str, str]:
    """An environment for git without this machine's configuration, prompts or tokens."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "HOME": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        **more,
    }
