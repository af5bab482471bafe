"""Cards that a person edited on the Hub, and the next release: nothing a person wrote is lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.card_merge import generated, merge, split
from hub.local.cards import read_card

FIRST = """---
license: apache-2.0
tags:
- eisv
- lumen
---

# Student

Hears shapes.

## Load it

```python
## no heading, but a comment
print("hello")
```

## Limits

Measured on 387 windows.

## Licence

Apache.
"""
SECOND = FIRST.replace("387", "410").replace("Hears shapes.", "Hears shapes well.")


def edited(card: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in card
        card = card.replace(old, new)
    return card


def test_a_card_nobody_edited_is_published_as_it_was_generated():
    assert merge(FIRST, FIRST, SECOND).text == SECOND
    assert merge(None, FIRST, FIRST).text == FIRST
    assert merge(FIRST, FIRST.replace("\n", "\r\n"), SECOND).text == SECOND


@pytest.mark.parametrize("begin", ["---\n", "--- \n", "\n---\t\n"])
@pytest.mark.parametrize("end", ["---\n", "--- \n", "---\t\n"])
def test_front_matter_ends_where_the_hub_lets_it_end(begin, end):
    """Spaces behind the dashes: the Hub does not see them, so what comes next is a person's text."""
    front, body = FIRST.removeprefix("---\n").split("---\n", 1)
    theirs = f"{begin}{front}{end}" + body.replace("Apache.", "Ask Ada: then be kind.\n\n---\nOr not.")
    assert read_card(theirs).data == {"license": "apache-2.0", "tags": ["eisv", "lumen"]}
    merged = merge(FIRST, theirs, SECOND)
    assert merged.kept == ("Licence",) and not merged.dropped
    assert "Ask Ada: then be kind.\n\n---\nOr not." in merged.text and "410" in merged.text
    assert read_card(merged.text).data == read_card(SECOND).data


def test_an_edited_section_is_kept_and_the_others_are_renewed():
    theirs = edited(FIRST, ("Apache.", "Apache, and be kind."))
    merged = merge(FIRST, theirs, SECOND)
    assert merged.kept == ("Licence",) and merged.conflicts == ()
    assert "be kind" in merged.text and "410" in merged.text and "387" not in merged.text


def test_an_edited_section_whose_generated_text_changed_stays_a_persons_and_is_told():
    theirs = edited(FIRST, ("Measured on 387 windows.", "Do not use it for cats."))
    merged = merge(FIRST, theirs, SECOND)
    assert merged.kept == merged.conflicts == ("Limits",)
    assert "cats" in merged.text and "410" not in merged.text


def test_what_was_kept_once_is_kept_by_every_later_release():
    theirs = edited(FIRST, ("Apache.", "Be kind."), ("license: apache-2.0", "license: mit"))
    published = merge(FIRST, theirs, SECOND).text
    for number in range(3):
        merged = merge(published, published, SECOND.replace("410", str(number)))
        assert "Be kind." in merged.text and "license: mit" in merged.text
        assert f"on {number} windows" in merged.text
        published = merged.text


def test_the_generated_section_comes_back_when_its_name_is_taken_out_of_the_comment():
    published = merge(FIRST, edited(FIRST, ("Apache.", "Be kind.")), SECOND).text
    released = edited(published, ('["Licence"]', "[]"))
    assert merge(published, released, SECOND).text == SECOND


@pytest.mark.parametrize("below", ["\n## Thanks\n\nTo my dog.\n", "To my dog.\n", " To my dog."])
def test_what_was_kept_stays_kept_when_a_person_writes_below_the_comment(below):
    theirs = edited(FIRST, ("Measured on 387 windows.", "Do not use it for cats."))
    published = merge(FIRST, theirs, SECOND).text
    for number in range(3):
        merged = merge(published, published + (below if number == 0 else ""), SECOND.replace("410", "500"))
        assert "for cats" in merged.text and "To my dog." in merged.text and "500" not in merged.text
        assert merged.text.count("kept by hand") == 1 and merged.text.rstrip().endswith("-->")
        published = merged.text


def test_the_names_of_several_comments_count_and_one_is_left():
    one = merge(FIRST, edited(FIRST, ("Apache.", "Be kind.")), SECOND).text
    other = edited(
        one, ("Hears shapes well.", 'Mine.\n\n<!-- kept by hand at every release: ["introduction"] -->')
    )
    merged = merge(other, other, SECOND.replace("410", "500"))
    assert merged.kept == ("introduction", "Licence") and merged.text.count("kept by hand") == 1
    assert "Mine." in merged.text and "Be kind." in merged.text and "500" in merged.text


def test_sections_added_and_removed_by_a_person_stay_so():
    theirs = edited(FIRST, ("## Licence", "## Who uses it\n\nTwo lamps.\n\n## Licence"))
    theirs = edited(theirs, ("## Limits\n\nMeasured on 387 windows.\n\n", ""))
    published = merge(FIRST, theirs, SECOND).text
    again = merge(published, published, SECOND).text
    for card in (published, again):
        names = list(split(card))
        assert "Limits" not in names
        assert names.index("Who uses it") == names.index("Licence") - 1
    assert again == published


def test_a_section_that_the_generator_dropped_goes_unless_it_was_edited():
    shorter = edited(SECOND, ("## Licence\n\nApache.\n", ""))
    assert "Licence" not in split(merge(FIRST, FIRST, shorter).text)
    theirs = edited(FIRST, ("Apache.", "Be kind."))
    assert "Be kind." in merge(FIRST, theirs, shorter).text


def test_front_matter_is_merged_key_by_key():
    theirs = edited(FIRST, ("- lumen\n", "- lumen\n- lamps\n"), ("---\n\n#", "thumbnail: a.png\n---\n\n#"))
    merged = merge(FIRST, theirs, SECOND.replace("license: apache-2.0", "license: apache-2.0\nlanguage: en"))
    assert "- lamps" in merged.text and "thumbnail: a.png" in merged.text and "language: en" in merged.text
    assert set(merged.kept) == {"front matter: tags", "front matter: thumbnail"}


def test_front_matter_that_would_not_be_readable_is_generated_anew():
    theirs = edited(FIRST, ("license: apache-2.0", "license: [apache-2.0"), ("Apache.", "Be kind."))
    merged = merge(FIRST, theirs, SECOND)
    assert merged.text.startswith("---\nlicense: apache-2.0\n") and "Be kind." in merged.text
    assert merged.kept == ("Licence",) and merged.dropped == ("front matter: license",)


def test_front_matter_of_a_person_that_makes_the_card_unreadable_is_told():
    theirs = edited(FIRST, ("- lumen\n", "- lumen\n- my-tag\n"), ("---\n\n#", "note: a: b\n---\n\n#"))
    merged = merge(FIRST, theirs, SECOND)
    assert merged.text == SECOND and merged.kept == ()
    assert set(merged.dropped) == {"front matter: tags", "front matter: note"}
    assert merge(FIRST, edited(FIRST, ("Apache.", "Be kind.")), SECOND).dropped == ()


def test_keys_that_a_person_deleted_come_back_because_the_hub_needs_them():
    assert merge(FIRST, edited(FIRST, ("license: apache-2.0\n", "")), FIRST).text == FIRST


def test_where_no_release_was_before_the_new_card_replaces_its_namesakes_only():
    theirs = "# Old words\n\nintro\n\n## Limits\n\nnone\n\n## Thanks\n\nto all\n"
    merged = merge(None, theirs, FIRST)
    assert "Thanks" in merged.text and "to all" in merged.text
    assert "Old words" not in merged.text and "387" in merged.text


def test_all_of_a_card_that_a_person_began_is_theirs():
    theirs = "---\nlicense: mit\n---\n\n# Mine\n\nFor a year.\n\n## Limits\n\nNot for cats.\n"
    merged = merge("", theirs, FIRST)
    assert all(words in merged.text for words in ("license: mit", "For a year.", "Not for cats.", "Apache."))
    assert "387" not in merged.text and "Limits" in merged.conflicts


def test_what_a_person_kept_is_no_generated_text():
    published = merge(FIRST, edited(FIRST, ("Apache.", "Be kind.")), SECOND).text
    assert "410" in generated(published) and "Be kind." not in generated(published)


def test_a_heading_in_code_is_no_section_and_equal_headings_are_told_apart():
    assert list(split(FIRST))[-4:] == ["introduction", "Load it", "Limits", "Licence"]
    assert list(split("## A\n1\n## A\n2\n")) == ["A", "A (2)"]


@pytest.mark.parametrize("comment", ["<!-- kept by hand at every release: [ -->", "<!-- kept by hand -->"])
def test_a_damaged_comment_harms_nothing(comment):
    assert "Be kind" in merge(FIRST, edited(FIRST, ("Apache.", "Be kind.")) + comment, SECOND).text


WORDS = st.text(alphabet="abc é\n", max_size=12).map(lambda text: text.strip("\n"))
BODIES = st.dictionaries(st.sampled_from("ABCDE"), WORDS, max_size=5)


def card_of(sections: dict[str, str]) -> str:
    body = "\n".join(f"## {name}\n\n{text}\n" for name, text in sections.items())
    return f"---\nlicense: mit\n---\n\n# T\n\n{body}"


@settings(max_examples=50, deadline=None)
@given(base=BODIES, theirs=BODIES, ours=BODIES)
def test_every_section_is_somebodys_and_merging_again_changes_nothing(base, theirs, ours):
    merged = merge(card_of(base), card_of(theirs), card_of(ours))
    found = {name: chunk.split("\n", 1)[1].strip() for name, chunk in split(merged.text).items()}
    for name in "ABCDE":
        edited_by_person = theirs.get(name, "").strip() != base.get(name, "").strip() or (
            (name in theirs) != (name in base)
        )
        wanted = theirs if edited_by_person else ours
        if name in wanted:
            assert found[name] == wanted[name].strip()
        else:
            assert name not in found
    assert merge(merged.text, merged.text, card_of(ours)).text == merged.text
