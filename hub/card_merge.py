"""A card that a person edited on the Hub meets the card of the next release: nothing a person wrote is lost.

Cards are merged by section: the front matter's keys, the introduction, and everything under a `## ` heading.
A section that differs from what was published before was edited by a person, and is theirs from then on; its
name is remembered in a comment at the end of the card, because the next release finds the edited text both
before and after. What a person writes below that comment moves above it; whoever deletes a name from it gets
the generated section back.
"""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import yaml

INTRODUCTION = "introduction"
_KEY = "front matter: "
# As the Hub reads it: spaces behind the dashes do not count.
_FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_KEPT = re.compile(r"[ \t]*<!--\s*kept by hand at every release:\s*(\[[^>]*\])\s*-->[ \t]*\n?")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")

Sections = dict[str, str]


@dataclass(frozen=True)
class Merged:
    """A merged card.

    Attributes:
        text: What to publish.
        kept: Names of the sections that are a person's.
        conflicts: Those of them whose generated text has changed since it was edited.
        dropped: Names of a person's front matter that is not kept, because the card would be unreadable.
    """

    text: str
    kept: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def merge(base: str | None, theirs: str, ours: str) -> Merged:
    """Merge a card with the one on the Hub.

    Args:
        base: What was published last; empty where nothing was, None where nobody knows.
        theirs: What the Hub has now.
        ours: What was generated for this release.

    Returns:
        `ours` itself where no section is a person's.
    """
    old, now, new = (split(text or "") for text in (base, theirs, ours))
    hand = set(_by_hand(theirs))
    kept: list[str] = []
    conflicts: list[str] = []
    chosen: Sections = {}
    for name in _in_order(new, now):
        if _is_theirs(name, None if base is None else old, now, new, hand):
            kept.append(name)
            if not _same(old.get(name), new.get(name)) and name not in hand:
                conflicts.append(name)
            if name in now:
                chosen[name] = now[name]
        elif name in new:
            chosen[name] = new[name]
    if not kept:
        return Merged(ours)
    text = _joined(chosen, kept)
    dropped: list[str] = []
    if not _readable(text):
        # What a person made of the front matter does not go with the new one; the Hub would refuse the card.
        body = {name: chunk for name, chunk in chosen.items() if not name.startswith(_KEY)}
        chosen = {**{name: chunk for name, chunk in new.items() if name.startswith(_KEY)}, **body}
        dropped = [name for name in kept if name.startswith(_KEY)]
        kept = [name for name in kept if name not in dropped]
        text = _joined(chosen, kept) if kept else ours
    return Merged(text, tuple(kept), tuple(name for name in conflicts if name in kept), tuple(dropped))


def generated(card: str) -> str:
    """What a published card says of itself, without the sections that are a person's."""
    hand = set(_by_hand(card))
    return "".join(chunk for name, chunk in split(card).items() if name not in hand)


def split(card: str) -> Sections:
    """The sections of a card by name, in order; joined they give the card again, but for blank lines."""
    card = _KEPT.sub("", card.replace("\r\n", "\n"))
    match = _FRONT_MATTER.match(card)
    sections: Sections = {}
    name = ""
    for line in match.group(1).splitlines(keepends=True) if match else ():
        if re.match(r"[^\s#-]", line):
            name = _unused(_KEY + line.split(":")[0].strip(), sections)
        sections[name or _KEY] = sections.get(name or _KEY, "") + line
    name, fence = INTRODUCTION, ""
    for line in card[match.end() if match else 0 :].splitlines(keepends=True):
        mark = _FENCE.match(line)
        if mark and (not fence or (mark[1][0] == fence[0] and len(mark[1]) >= len(fence))):
            fence = "" if fence else mark[1]
        elif not fence and line.startswith("## "):
            name = _unused(line[3:].strip(), sections)
        sections[name] = sections.get(name, "") + line
    return sections


def _is_theirs(name: str, old: Sections | None, now: Sections, new: Sections, hand: set[str]) -> bool:
    """Whether a section is as a person left it, and not as it was or would be generated."""
    if _same(now.get(name), new.get(name)):
        return False
    if name.startswith(_KEY) and name not in now:
        return False  # the Hub and the kit need what the front matter says
    if name in hand:
        return True
    if old is None:  # nobody knows who wrote what: the new text replaces its namesake, the rest stays
        return name not in new
    return not _same(now.get(name), old.get(name))


def _in_order(new: Sections, now: Sections) -> list[str]:
    """The names of both, the second's own ones behind those they stood behind."""
    names = list(new)
    before = ""
    for name in now:
        if name not in new:
            place = names.index(before) + 1 if before in names else 0
            names.insert(place, name)
        before = name
    return sorted(names, key=lambda name: not name.startswith(_KEY))


def _by_hand(card: str) -> Iterable[str]:
    for match in _KEPT.finditer(card):
        with suppress(ValueError):
            yield from (name for name in json.loads(match[1]) if isinstance(name, str))


def _joined(sections: Mapping[str, str], kept: Iterable[str]) -> str:
    head = "".join(_ended(chunk) for name, chunk in sections.items() if name.startswith(_KEY))
    body = [chunk.strip("\n") for name, chunk in sections.items() if not name.startswith(_KEY)]
    names = json.dumps(sorted(kept), ensure_ascii=False).replace(">", "\\u003e")
    comment = f"<!-- kept by hand at every release: {names} -->"
    return (f"---\n{head}---\n\n" if head else "") + "\n\n".join([*body, comment]) + "\n"


def _readable(card: str) -> bool:
    match = _FRONT_MATTER.match(card)
    try:
        return match is not None and isinstance(yaml.safe_load(match[1]), dict)
    except yaml.YAMLError:
        return False


def _unused(name: str, sections: Sections) -> str:
    number, unused = 1, name
    while unused in sections:
        number += 1
        unused = f"{name} ({number})"
    return unused


def _ended(chunk: str) -> str:
    return chunk if chunk.endswith("\n") else chunk + "\n"


def _same(one: str | None, other: str | None) -> bool:
    return (one or "").strip() == (other or "").strip()
