"""The names and tables of the domain: dimensions, shapes, tokens, patterns, Lumen words.

Indices into the tuples below are the ids used in every array, dataset and graph.
"""

import numpy as np

DIMENSIONS = ("E", "I", "S", "V")
"""Energy, integrity, entropy, void; the column order of every state array."""

SHAPES = (
    "settled_presence",
    "convergence",
    "rising_entropy",
    "falling_energy",
    "basin_transition_down",
    "basin_transition_up",
    "entropy_spike_recovery",
    "drift_dissonance",
    "void_rising",
)

SHAPE_DESCRIPTIONS = {
    "settled_presence": "stable, grounded state with low entropy and void",
    "convergence": "a movement that died down towards an attractor",
    "rising_entropy": "sustained increase in uncertainty",
    "falling_energy": "gradual energy decline",
    "basin_transition_down": "shift from a higher to a lower energy basin",
    "basin_transition_up": "shift from a lower to a higher energy basin",
    "entropy_spike_recovery": "sharp entropy increase followed by return to baseline",
    "drift_dissonance": "conflicting movements under ethical drift",
    "void_rising": "increasing disengagement",
}

TOKENS = (
    "warmth",
    "curiosity",
    "resonance",
    "stillness",
    "boundary",
    "reaching",
    "reflection",
    "ripple",
    "deep_listening",
    "emergence",
    "questioning",
    "holding",
    "releasing",
    "threshold",
    "return",
)
"""Primitive tokens; written `~token~`."""

PATTERNS = ("SINGLE", "PAIR", "TRIPLE", "REPETITION", "QUESTION")

LUMEN_WORDS = (
    "warm",
    "feel",
    "why",
    "wonder",
    "with",
    "here",
    "quiet",
    "less",
    "sense",
    "more",
    "you",
    "what",
    "busy",
    "bright",
    "dim",
)

N_SHAPES, N_TOKENS, N_PATTERNS, N_WORDS = len(SHAPES), len(TOKENS), len(PATTERNS), len(LUMEN_WORDS)
MAX_TOKENS = 3
PAD, EOS = N_TOKENS, N_TOKENS + 1
"""Ids beside the tokens: EOS ends a statement, PAD in its place ends a question and fills the rest."""
N_CLASSES = N_TOKENS + 2

VOID_MAX = 0.3
"""V is 0.3 times absence, so it lies in [0, 0.3]."""

STATE_MAX = np.array([1.0, 1.0, 1.0, VOID_MAX])

SHAPE_ID = {name: index for index, name in enumerate(SHAPES)}
TOKEN_ID = {name: index for index, name in enumerate(TOKENS)}
PATTERN_ID = {name: index for index, name in enumerate(PATTERNS)}
WORD_ID = {name: index for index, name in enumerate(LUMEN_WORDS)}

# Per shape: pattern weights in PATTERNS order, affine tokens, tokens wanted, LED tint (R, G, B).
_VOICE: dict[str, tuple[tuple[float, ...], str, int, tuple[int, int, int]]] = {
    "settled_presence": (
        (0.40, 0.30, 0.10, 0.15, 0.05),
        "stillness holding resonance deep_listening",
        1,
        (8, 4, -4),
    ),
    "convergence": (
        (0.40, 0.30, 0.10, 0.15, 0.05),
        "stillness resonance return deep_listening",
        2,
        (4, 2, -2),
    ),
    "rising_entropy": (
        (0.10, 0.20, 0.30, 0.10, 0.30),
        "ripple emergence questioning curiosity",
        3,
        (10, 5, -2),
    ),
    "falling_energy": (
        (0.30, 0.30, 0.10, 0.20, 0.10),
        "releasing stillness boundary reflection",
        2,
        (2, 0, -2),
    ),
    "basin_transition_down": (
        (0.20, 0.30, 0.30, 0.10, 0.10),
        "releasing threshold boundary",
        3,
        (2, 0, -2),
    ),
    "basin_transition_up": (
        (0.15, 0.30, 0.35, 0.10, 0.10),
        "emergence reaching warmth return",
        3,
        (10, 4, -2),
    ),
    "entropy_spike_recovery": (
        (0.10, 0.30, 0.30, 0.20, 0.10),
        "ripple return holding reflection",
        2,
        (6, 4, -2),
    ),
    "drift_dissonance": (
        (0.10, 0.20, 0.20, 0.10, 0.40),
        "boundary questioning reflection",
        3,
        (0, -2, -4),
    ),
    "void_rising": (
        (0.20, 0.20, 0.20, 0.10, 0.30),
        "reaching curiosity questioning threshold",
        2,
        (6, 4, -2),
    ),
}

PATTERN_WEIGHTS = np.array([_VOICE[shape][0] for shape in SHAPES])
"""[9, 5] probability of each pattern per shape."""

AFFINITY = np.array([[token in _VOICE[shape][1].split() for token in TOKENS] for shape in SHAPES])
"""[9, 15] bool: is the token affine to the shape."""

BASE_WEIGHTS = np.where(AFFINITY, 3.0, 1.0)
"""[9, 15] weight of each token per shape before any feedback."""

TOKENS_WANTED = np.array([_VOICE[shape][2] for shape in SHAPES])
"""[9] tokens a display asks for per shape."""

LED_TINT = np.array([_VOICE[shape][3] for shape in SHAPES])
"""[9, 3] R, G, B added to the base colour."""

TRANSLATION = {
    "warmth": ("warm", "feel"),
    "curiosity": ("why", "wonder"),
    "resonance": ("with", "here"),
    "stillness": ("quiet", "here"),
    "boundary": ("less", "sense"),
    "reaching": ("more", "you"),
    "reflection": ("what", "feel"),
    "ripple": ("busy", "sense"),
    "deep_listening": ("quiet", "sense"),
    "emergence": ("more", "bright"),
    "questioning": ("why", "what"),
    "holding": ("here", "with"),
    "releasing": ("less", "dim"),
    "threshold": ("sense", "more"),
    "return": ("here", "warm"),
}
"""Each token's two Lumen words; translation takes the first not used yet."""
