"""What a teacher is trained on: prompts of both forms, answered by fresh draws from the target each epoch.

The target is a distribution, so besides the answer drawn ("hard" targets) the trainer can be given, at each
token of the expression, the exact probability of every token that may stand there ("soft" targets). They
teach the same distribution with less noise.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from eisv_lumen.distribution import ExpressionDistribution
from eisv_lumen.expression import all_sequences
from eisv_lumen.vocabulary import N_SHAPES
from eisv_lumen.windows import summaries
from training.configuration import require
from training.data import Split
from training.dialogue import FORMS, Form, prompt_ids
from training.grammar import AnswerGrammar
from training.soft_targets import Example, SoftTargets, contexts, draw


@dataclass(frozen=True)
class TargetSettings:
    """What the teacher shall say.

    Attributes:
        kind: "soft" for exact next-token probabilities, "hard" for the drawn answer alone.
        forms: Share of each form of prompt among the examples.
        balance: 0 draws windows as they are, 1 draws every shape equally often.
        long_share: Share of soft examples drawn from the longer patterns alone, see `soft_targets.contexts`.
        answers: Answers taught to each prompt, beside each other: the prompt, most of the work, is read once.
        legality: Weight of the loss that keeps impossible tokens away (soft only), see `target_trainer`.
        purity: Weight of the loss that drives out the last of them (soft only), see `target_trainer`.
        observed_share: Of the windows with a recorded, scored expression, the share answered by that
            expression instead of a draw; its loss is weighted by the score.
    """

    kind: Literal["soft", "hard"] = "soft"
    forms: dict[Form, float] = field(default_factory=lambda: {"design": 0.7, "card": 0.3})
    balance: float = 0.5
    long_share: float = 0.5
    answers: int = 1
    legality: float = 1.0
    purity: float = 0.0
    observed_share: float = 0.0

    def __post_init__(self) -> None:
        """Refuse unknown forms and shares out of range."""
        known = bool(self.forms) and set(self.forms) <= set(FORMS)
        require(known and min(self.forms.values()) > 0, "forms", self.forms, "a share for design or card")
        for name in ("balance", "long_share", "observed_share"):
            value = getattr(self, name)
            require(0 <= value <= 1, name, value, "a number from 0 to 1")
        require(self.answers > 0, "answers", self.answers, "at least one")
        for name in ("legality", "purity"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "a weight of at least 0")


class TeacherExamples(Dataset):
    """Examples drawn from windows; which ones depends on seed, epoch and index alone.

    Args:
        split: The windows.
        tokenizer: The base model's.
        grammars: One per form in use.
        target: What shall be said, one row per shape.
        settings: See `TargetSettings`.
        count: Examples per epoch; None for as many as windows.
        seed: Seed of the draws.
    """

    def __init__(
        self,
        split: Split,
        tokenizer: Any,
        grammars: dict[Form, AnswerGrammar],
        target: ExpressionDistribution,
        settings: TargetSettings,
        *,
        count: int | None,
        seed: int,
    ) -> None:
        self.epoch = 0
        self._settings, self._seed, self._count = settings, seed, count or len(split)
        self._split, self._grammars = split, grammars
        described = summaries(split.windows)
        self._prompts = {form: prompt_ids(tokenizer, form, split.shapes, described) for form in grammars}
        self._soft = {form: SoftTargets.of(grammar, target) for form, grammar in grammars.items()}
        self._answers = contexts(target, settings.long_share if settings.kind == "soft" else 0.0)
        self._index = {tuple(ids): index for index, ids in enumerate(all_sequences().tolist())}
        share = np.bincount(split.shapes, minlength=N_SHAPES)[split.shapes] ** -settings.balance
        self._windows = np.cumsum(share / share.sum())
        self._forms = list(settings.forms)
        self._form_shares = np.cumsum([settings.forms[f] for f in self._forms]) / sum(settings.forms.values())

    def __len__(self) -> int:
        """Examples per epoch."""
        return self._count

    def longest(self) -> int:
        """Tokens of the longest prompt with the longest answer to it."""
        return max(
            max(map(len, prompts)) + max(map(len, self._grammars[form].answers))
            for form, prompts in self._prompts.items()
        )

    def __getitem__(self, index: int) -> list[Example]:
        """The examples of the prompt with this index in the current epoch."""
        which, kind, answer, observed = np.random.default_rng([self._seed, self.epoch, index]).random(4)
        window = min(int(np.searchsorted(self._windows, which)), len(self._split) - 1)
        form = self._forms[min(int(np.searchsorted(self._form_shares, kind)), len(self._forms) - 1)]
        said, score = self._split.observed_ids[window], float(self._split.observed_scores[window])
        # What was not scored, or scored 0, teaches nothing: NaN is not above 0 either.
        if observed < self._settings.observed_share and said[0] >= 0 and score > 0:
            return [self._example(form, window, self._index[tuple(said.tolist())], hard=True, weight=score)]
        cumulative = self._answers[self._split.shapes[window]]
        hard = self._settings.kind == "hard"
        return [
            self._example(form, window, drawn, hard=hard)
            for drawn in draw(cumulative, answer, self._settings.answers)
        ]

    def _example(self, form: Form, window: int, drawn: int, *, hard: bool, weight: float = 1.0) -> Example:
        return Example.of(
            self._prompts[form][window],
            self._grammars[form],
            drawn,
            None if hard else self._soft[form],
            int(self._split.shapes[window]),
            weight,
        )
