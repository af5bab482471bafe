"""Semantic versions of releases, and the tags they are published under."""

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Self

from eisv_lumen.errors import ConfigurationError

_NUMBER = r"(?:0|[1-9]\d{0,8})"
_PART = r"(?:0|[1-9]\d{0,8}|\d*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_PART}(?:\.{_PART})*))?", re.ASCII)
CHANNELS = ("stable", "beta")


@total_ordering
@dataclass(frozen=True)
class Version:
    """`major.minor.patch[-prerelease]`, ordered as semver.org section 11 says; no build metadata."""

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a version.

        Raises:
            ConfigurationError: When the text is no semantic version.
        """
        match = _VERSION.fullmatch(text)
        if match is None or len(text) > 64:
            raise ConfigurationError(
                found=f"version {text[:64]!r}",
                expected="a semantic version such as 0.1.0 or 0.2.0-beta.1",
                next="pass one with --version",
            )
        major, minor, patch, pre = match.groups()
        return cls(int(major), int(minor), int(patch), tuple(pre.split(".")) if pre else ())

    @classmethod
    def of_tag(cls, tag: str) -> Self | None:
        """The version of a tag `v1.2.3`; None for any other tag."""
        try:
            return cls.parse(tag[1:]) if tag.startswith("v") else None
        except ConfigurationError:
            return None

    def __str__(self) -> str:
        """The version's text."""
        release = f"{self.major}.{self.minor}.{self.patch}"
        return f"{release}-{'.'.join(self.prerelease)}" if self.prerelease else release

    def __lt__(self, other: object) -> bool:
        """Precedence: numbers first; a prerelease comes before its release."""
        if not isinstance(other, Version):
            return NotImplemented
        return self._order < other._order

    @property
    def _order(self) -> tuple:
        parts = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in self.prerelease)
        return self.major, self.minor, self.patch, not parts, parts

    @property
    def tag(self) -> str:
        """The tag this version is published under."""
        return f"v{self}"

    @property
    def channel(self) -> str:
        """`beta` for a prerelease, `stable` otherwise."""
        return "beta" if self.prerelease else "stable"

    def on(self, channel: str) -> bool:
        """Whether a device on this channel takes the version; `beta` takes both."""
        return channel == "beta" or self.channel == channel
