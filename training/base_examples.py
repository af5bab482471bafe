"""What a base model is pre-trained on: prompts of every kind, answered by the plain rules.

The plain rules are what Lumen says before any feedback, about half of it coherent, so that what an adapter
adds later is visible. As the rules' exact probabilities are known, they are the targets. What no rule ever
says (a token said again in a TRIPLE) is kept away here already: an adapter sharpens what its base can tell
apart, and learns such a rule anew only slowly.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from eisv_lumen.rules import Rules
from eisv_lumen.vocabulary import N_SHAPES, SHAPES
from training import corpus
from training.grammar import AnswerGrammar
from training.soft_targets import Example, SoftTargets, contexts, draw

# Where in the run documents of each kind are met, as shares of it: what is short comes first.
_MET = {"phrases": (0.0, 0.7), "short": (0.0, 1.0), "card": (0.2, 1.0), "design": (0.3, 1.0)}
_LONG_SHARE = 0.4


class BaseExamples(Dataset):
    """Documents in batches of one kind, in the order in which they are to be read.

    Args:
        tokenizer: The base model's.
        documents: Documents of each kind, see `corpus.KINDS`.
        batch_size: Documents in a batch.
        answers: Answers taught to each prompt, see `teacher_examples.TargetSettings`.
        seed: Seed of everything drawn.
    """

    def __init__(
        self, tokenizer: Any, documents: dict[str, int], batch_size: int, answers: int, seed: int
    ) -> None:
        self._beside = answers
        generator = np.random.default_rng(seed)
        target = Rules().distribution()
        self._grammars = {form: AnswerGrammar(tokenizer, form) for form in ("design", "card")}
        self._soft = {form: SoftTargets.of(grammar, target) for form, grammar in self._grammars.items()}
        self._answers = contexts(target, _LONG_SHARE)
        self._break = tokenizer("\n", add_special_tokens=False)["input_ids"]
        batches: list[tuple[float, str, np.ndarray, list[list[int]]]] = []
        for kind, count in documents.items():
            shapes = generator.integers(0, N_SHAPES, count - count % batch_size)
            texts = [corpus.prompt_text(kind, SHAPES[shape], generator) for shape in shapes]
            prompts = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
            for start in range(0, len(texts), batch_size):
                chosen = slice(start, start + batch_size)
                batches.append((generator.uniform(*_MET[kind]), kind, shapes[chosen], prompts[chosen]))
        batches.sort(key=lambda batch: batch[0])
        self._rows = [
            (kind, int(shape), prompt)
            for _, kind, shapes, prompts in batches
            for shape, prompt in zip(shapes, prompts, strict=True)
        ]
        self._draws = generator.random((len(self._rows), corpus.PHRASES))

    def __len__(self) -> int:
        """Number of documents."""
        return len(self._rows)

    def __getitem__(self, index: int) -> list[Example]:
        """One document, or its prompt with several answers."""
        kind, shape, prompt = self._rows[index]
        form = "card" if kind == "card" else "design"
        cumulative = self._answers[shape]

        def answered(drawn: int) -> Example:
            return Example.of(prompt, self._grammars[form], drawn, self._soft[form], shape)

        if kind == "phrases":
            return [self._joined([answered(draw(cumulative, u, 1)[0]) for u in self._draws[index]])]
        return [answered(drawn) for drawn in draw(cumulative, self._draws[index, 0], self._beside)]

    def _joined(self, said: list[Example]) -> Example:
        """Answers one after the other, a line break for each end token."""
        breaks = [*self._break * (len(said) - 1), said[-1].answer[-1]]
        answers = [[*one.answer[:-1], end] for one, end in zip(said, breaks, strict=True)]
        tokens = [one.tokens.copy() for one in said]
        for part, end in zip(tokens, breaks, strict=True):
            part[-1, 0] = end
        return replace(
            said[0],
            answer=[token for answer in answers for token in answer],
            tokens=np.concatenate(tokens),
            probabilities=np.concatenate([one.probabilities for one in said]),
        )
