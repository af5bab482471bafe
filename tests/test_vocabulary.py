import numpy as np
import pytest

from eisv_lumen import vocabulary as v

# Typed again from the domain's tables, so that a slip in either is seen.
PUBLISHED_TABLE = """
settled_presence       | .40 .30 .10 .15 .05 | stillness holding resonance deep_listening | 1 | 8 4 -4
convergence            | .40 .30 .10 .15 .05 | stillness resonance return deep_listening  | 2 | 4 2 -2
rising_entropy         | .10 .20 .30 .10 .30 | ripple emergence questioning curiosity     | 3 | 10 5 -2
falling_energy         | .30 .30 .10 .20 .10 | releasing stillness boundary reflection    | 2 | 2 0 -2
basin_transition_down  | .20 .30 .30 .10 .10 | releasing threshold boundary               | 3 | 2 0 -2
basin_transition_up    | .15 .30 .35 .10 .10 | emergence reaching warmth return           | 3 | 10 4 -2
entropy_spike_recovery | .10 .30 .30 .20 .10 | ripple return holding reflection           | 2 | 6 4 -2
drift_dissonance       | .10 .20 .20 .10 .40 | boundary questioning reflection            | 3 | 0 -2 -4
void_rising            | .20 .20 .20 .10 .30 | reaching curiosity questioning threshold   | 2 | 6 4 -2
"""
TRANSLATION = (
    "warmth warm/feel; curiosity why/wonder; resonance with/here; stillness quiet/here; boundary less/sense; "
    "reaching more/you; reflection what/feel; ripple busy/sense; deep_listening quiet/sense; "
    "emergence more/bright; questioning why/what; holding here/with; releasing less/dim; "
    "threshold sense/more; return here/warm"
)
ROWS = [[cell.strip() for cell in line.split("|")] for line in PUBLISHED_TABLE.strip().splitlines()]


def test_there_are_nine_shapes_fifteen_tokens_five_patterns_and_fifteen_words():
    assert (v.N_SHAPES, v.N_TOKENS, v.N_PATTERNS, v.N_WORDS) == (9, 15, 5, 15)
    for names in (v.SHAPES, v.TOKENS, v.PATTERNS, v.LUMEN_WORDS):
        assert len(set(names)) == len(names)
    assert (v.PAD, v.EOS, v.N_CLASSES) == (15, 16, 17)
    assert set(v.SHAPE_DESCRIPTIONS) == set(v.SHAPES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_shape_speaks_as_the_domain_states(row):
    name, patterns, affine, wanted, tint = row
    shape = v.SHAPE_ID[name]
    assert v.PATTERN_WEIGHTS[shape] == pytest.approx([float(p) for p in patterns.split()])
    assert v.PATTERN_WEIGHTS[shape].sum() == pytest.approx(1)
    assert {v.TOKENS[i] for i in np.flatnonzero(v.AFFINITY[shape])} == set(affine.split())
    assert v.BASE_WEIGHTS[shape].tolist() == [3.0 if a else 1.0 for a in v.AFFINITY[shape]]
    assert v.TOKENS_WANTED[shape] == int(wanted)
    assert v.LED_TINT[shape].tolist() == [int(channel) for channel in tint.split()]


def test_translation_is_the_domains_table():
    stated = {
        token: tuple(words.split("/"))
        for token, words in (entry.strip().split(" ") for entry in TRANSLATION.split(";"))
    }
    assert stated == v.TRANSLATION
    assert {word for pair in stated.values() for word in pair} == set(v.LUMEN_WORDS)


def test_ids_are_positions():
    for names, ids in ((v.SHAPES, v.SHAPE_ID), (v.TOKENS, v.TOKEN_ID), (v.PATTERNS, v.PATTERN_ID)):
        assert [ids[name] for name in names] == list(range(len(names)))
