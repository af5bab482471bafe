"""The grammar of answers in a tokenizer's own tokens: constrained decoding, and exact distributions.

Every legal expression is written out and tokenized; the token sequences form a trie. Decoding that may only
follow the trie always answers legally, and the product of its renormalised next-token probabilities on a path
is the exact probability of an expression: no sample is needed to know what a model would say.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from eisv_lumen.distribution import LEGAL_SECOND, LEGAL_THIRD, ExpressionDistribution
from eisv_lumen.errors import ConfigurationError
from eisv_lumen.expression import Expression, all_sequences
from eisv_lumen.vocabulary import LUMEN_WORDS, N_CLASSES, N_TOKENS, PATTERNS
from training.dialogue import Form, answer_ids, expression_text

NO_CHILD = -1


@dataclass(frozen=True)
class ExpressionTrie:
    """All legal expressions as paths of tokens, in breadth-first order; node 0 is the end of the prompt.

    Attributes:
        token: `[M]` token that leads to each node (-1 for node 0).
        parent: `[M]` node it follows.
        depth: `[M]` tokens from the prompt's end.
        children: `[M, K]` nodes that may follow, -1 where there are fewer.
        leaf: `[3000]` node in which each of `all_sequences()` ends.
    """

    token: np.ndarray
    parent: np.ndarray
    depth: np.ndarray
    children: np.ndarray
    leaf: np.ndarray

    @classmethod
    def of(cls, sequences: list[list[int]]) -> "ExpressionTrie":
        """The trie of token sequences, of which none may begin another."""
        nodes: dict[tuple[int, ...], int] = {(): 0}
        for length in range(1, max(map(len, sequences)) + 1):
            for sequence in sequences:
                if len(sequence) >= length:
                    nodes.setdefault(tuple(sequence[:length]), len(nodes))
        parent = np.array([nodes[path[:-1]] for path in nodes])
        followers: list[list[int]] = [[] for _ in nodes]
        for node, above in enumerate(parent.tolist()):
            if node:
                followers[above].append(node)
        children = np.full((len(nodes), max(map(len, followers))), NO_CHILD)
        for node, below in enumerate(followers):
            children[node, : len(below)] = below
        return cls(
            token=np.array([path[-1] if path else -1 for path in nodes]),
            parent=parent,
            depth=np.array([len(path) for path in nodes]),
            children=children,
            leaf=np.array([nodes[tuple(sequence)] for sequence in sequences]),
        )

    def masses(self, leaf_probabilities: np.ndarray) -> np.ndarray:
        """`[S, M]` probability of passing through each node, from `[S, 3000]` of ending in each leaf."""
        mass = np.zeros((len(leaf_probabilities), len(self.token)))
        mass[:, self.leaf] = leaf_probabilities
        for node in range(len(self.token) - 1, 0, -1):
            mass[:, self.parent[node]] += mass[:, node]
        return mass

    def choices(self) -> np.ndarray:
        """Nodes with more than one way on."""
        return np.flatnonzero((self.children != NO_CHILD).sum(axis=1) > 1)

    def context(self) -> np.ndarray:
        """Nodes a model must read to know what follows at every choice, node 0 left out; parents first."""
        needed = np.zeros(len(self.token), bool)
        for node in self.choices():
            while node and not needed[node]:
                needed[node] = True
                node = self.parent[node]
        return np.flatnonzero(needed)

    def path(self, leaf: int) -> list[int]:
        """The nodes from below the prompt's end to a leaf."""
        nodes = []
        while leaf:
            nodes.append(leaf)
            leaf = int(self.parent[leaf])
        return nodes[::-1]


class AnswerGrammar:
    """Every legal answer in one form, for one tokenizer.

    Args:
        tokenizer: Any transformers tokenizer with an end token.
        form: Which prompt the answers belong to.

    Raises:
        ConfigurationError: The tokenizer joins the end of a line with what follows it.
    """

    def __init__(self, tokenizer: Any, form: Form) -> None:
        self.form = form
        self.end = int(tokenizer.eos_token_id)
        self.sequences = all_sequences()
        self.answers = answer_ids(tokenizer, form)
        texts = [expression_text(form, Expression.from_ids(ids)) for ids in self.sequences]
        lines: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
        if form == "card":
            lines = [[*line, self.end] for line in lines]
        for line, answer in zip(lines, self.answers, strict=True):
            if answer[: len(line)] != line:
                raise ConfigurationError(
                    found=f"tokenizer {tokenizer.name_or_path} joins an answer's lines into one token",
                    expected="a tokenizer that keeps the end of a line apart from the next line",
                    next="choose another base model",
                )
        self.lines = lines
        self.trie = ExpressionTrie.of(lines)
        self._rest = _rest_of_answer(tokenizer) if form == "design" else {}
        self._first = _nested(lines)

    def allowed_after(self, said: list[int]) -> list[int]:
        """Tokens that may follow the tokens of an unfinished answer; the end token after a finished one."""
        place, level = self._first, 0
        for token in said:
            if token not in place:
                return [self.end]
            found = place[token]
            place, level = (
                (self._following(found, level), level + 1) if isinstance(found, int) else (found, level)
            )
        return list(place) or [self.end]

    def constraint(self, prompt_length: int) -> Callable[[int, Any], list[int]]:
        """A `prefix_allowed_tokens_fn` for `generate`; `prompt_length` includes padding on the left."""
        return lambda _, ids: self.allowed_after(ids[prompt_length:].tolist())

    def _following(self, found: int, level: int) -> dict[int, Any]:
        """What may follow once line `level` is complete; the pattern must be the expression's."""
        if self.form == "card" or level == 2:
            return {}
        if level == 0:
            pattern = Expression.from_ids(self.sequences[found]).pattern
            return self._rest[pattern]
        return {}


def _rest_of_answer(tokenizer: Any) -> dict[str, dict[int, Any]]:
    """Per pattern, the nested tokens of every legal choice of Lumen words and of the pattern's line."""
    words = [
        " ".join(LUMEN_WORDS[i] for i in chosen)
        for count in (1, 2, 3)
        for chosen in np.ndindex(*(len(LUMEN_WORDS),) * count)
        if len(set(chosen)) == count
    ]
    lumen = tokenizer([f"LUMEN_TOKENS: {line}\n" for line in words], add_special_tokens=False)["input_ids"]
    end = [int(tokenizer.eos_token_id)]
    patterns = tokenizer([f"PATTERN: {name}" for name in PATTERNS], add_special_tokens=False)["input_ids"]
    return {
        name: _nested([line + pattern + end for line in lumen])
        for name, pattern in zip(PATTERNS, patterns, strict=True)
    }


def _nested(sequences: list[list[int]]) -> dict[int, Any]:
    """Sequences as nested dictionaries; the last token of each leads to its index."""
    root: dict[int, Any] = {}
    for index, sequence in enumerate(sequences):
        place = root
        for token in sequence[:-1]:
            place = place.setdefault(token, {})
        place[sequence[-1]] = index
    return root


class ExpressionScorer:
    """Exact distributions of a language model over all legal expressions, many prompts at a time.

    The beginning that all prompts share is read once; each prompt is read once; and the choices of the
    grammar are read beside each other in the same pass, each seeing the prompt and its own path only.

    Args:
        model: A causal language model, with or without adapters; used as it is when `score` is called.
        grammar: The grammar of its tokenizer.
        batch_size: Prompts per forward pass.
    """

    def __init__(self, model: Any, grammar: AnswerGrammar, batch_size: int = 32) -> None:
        self.model = model
        self.grammar = grammar
        self.batch_size = batch_size
        trie = grammar.trie
        context, choices = trie.context(), trie.choices()
        place = np.full(len(trie.token), -1)
        place[0], place[context] = 0, np.arange(1, len(context) + 1)
        self._tokens = trie.token[context]
        self._depths = trie.depth[context]
        self._sees = _ancestry(trie, context)
        self._choices = place[choices]
        options = trie.children[choices]
        self._options = np.unique(trie.token[options[options != NO_CHILD]])
        self._columns = np.where(
            options == NO_CHILD, NO_CHILD, np.searchsorted(self._options, trie.token[options])
        )
        self._edges = options

    def score(
        self, prompts: list[list[int]], progress: Callable[[int], None] | None = None
    ) -> tuple[ExpressionDistribution, np.ndarray]:
        """Distributions of N prompts.

        Args:
            prompts: Token ids of each prompt.
            progress: Called with the number of prompts done.

        Returns:
            The distributions, and `[N, H]` float32 the hidden state from which the first token of the
            expression is predicted, after the last layer.
        """
        import torch

        shared = _shared_prefix(prompts)
        order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
        leaves: list[np.ndarray] = [np.zeros(0)] * len(prompts)
        hidden: list[np.ndarray] = [np.zeros(0)] * len(prompts)
        was_training = self.model.training
        self.model.eval()
        with torch.inference_mode():
            prefix = self._read_prefix(prompts[0][:shared]) if shared else None
            for start in range(0, len(order), self.batch_size):
                chosen = order[start : start + self.batch_size]
                scores, states = self._forward([prompts[i] for i in chosen], shared, prefix)
                for index, score, state in zip(chosen, scores, states, strict=True):
                    leaves[index], hidden[index] = score, state
                if progress is not None:
                    progress(start + len(chosen))
        self.model.train(was_training)
        return distribution_of(np.stack(leaves)), np.stack(hidden)

    def _read_prefix(self, tokens: list[int]) -> Any:
        import torch

        ids = torch.tensor([tokens], device=self.model.device)
        return _backbone(self.model)(input_ids=ids, use_cache=True).past_key_values

    def _forward(self, prompts: list[list[int]], shared: int, prefix: Any) -> tuple[np.ndarray, np.ndarray]:
        """`[B, 3000]` log-probabilities of the expressions and `[B, H]` hidden states."""
        import torch

        device, backbone = self.model.device, _backbone(self.model)
        own = [prompt[shared:] for prompt in prompts]
        longest, size = max(map(len, own)), len(self._tokens)
        tokens = np.zeros((len(own), longest + size), np.int64)
        positions = np.zeros_like(tokens)
        sees = np.zeros((len(own), longest + size, shared + longest + size), bool)
        sees[:, :, :shared] = True
        causal = np.tri(longest, dtype=bool)
        for row, prompt in enumerate(own):
            pad = longest - len(prompt)
            tokens[row, pad:longest] = prompt
            tokens[row, longest:] = self._tokens
            positions[row, pad:longest] = shared + np.arange(len(prompt))
            positions[row, longest:] = shared + len(prompt) - 1 + self._depths
            sees[row, pad:longest, shared + pad : shared + longest] = causal[pad:, pad:]
            sees[row, longest:, shared + pad : shared + longest] = True
        sees[:, longest:, shared + longest :] = self._sees
        kind = next(backbone.parameters()).dtype
        mask = torch.zeros(sees.shape, dtype=kind, device=device)
        mask.masked_fill_(~torch.from_numpy(sees).to(device), torch.finfo(kind).min)
        states = backbone(
            input_ids=torch.from_numpy(tokens).to(device),
            position_ids=torch.from_numpy(positions).to(device),
            attention_mask=mask[:, None],
            past_key_values=_repeated(prefix, len(own)) if prefix is not None else None,
            use_cache=prefix is not None,
        ).last_hidden_state[:, longest - 1 :]
        head = self.model.get_output_embeddings().weight[torch.from_numpy(self._options).to(device)]
        logits = states[:, torch.from_numpy(self._choices).to(device)].float() @ head.float().T
        answer = self._answer_states(states)
        return self._leaves(logits.double().cpu().numpy()), answer.float().cpu().numpy()

    def _answer_states(self, states: Any) -> Any:
        """The state after the last token before the expression's first choice."""
        return states[:, int(self._choices[0])]

    def _leaves(self, logits: np.ndarray) -> np.ndarray:
        trie = self.grammar.trie
        found = np.take_along_axis(
            logits, np.maximum(self._columns, 0)[None].repeat(len(logits), axis=0), axis=2
        )
        found = np.where(self._columns == NO_CHILD, -np.inf, found)
        found -= found.max(axis=2, keepdims=True)
        found -= np.log(np.exp(found).sum(axis=2, keepdims=True))
        edges = np.zeros((len(logits), len(trie.token)))
        real = self._edges != NO_CHILD
        edges[:, self._edges[real]] = found[:, real]
        total = np.zeros_like(edges)
        for depth in range(1, int(trie.depth.max()) + 1):
            at = np.flatnonzero(trie.depth == depth)
            total[:, at] = total[:, trie.parent[at]] + edges[:, at]
        return total[:, trie.leaf]


def distribution_of(log_probabilities: np.ndarray) -> ExpressionDistribution:
    """The distribution with these `[N, 3000]` log-probabilities of `all_sequences()`."""
    one, two, three = all_sequences().T
    probabilities = np.exp(log_probabilities - log_probabilities.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    rows = len(probabilities)
    joint = np.zeros((rows, N_TOKENS, N_CLASSES, N_CLASSES))
    joint[:, one, two, three] = probabilities
    pairs = joint.sum(axis=3)
    singles = pairs.sum(axis=2)
    first = np.zeros((rows, N_CLASSES))
    first[:, :N_TOKENS] = singles
    return ExpressionDistribution(
        first,
        _ratio(pairs, singles[..., None], LEGAL_SECOND),
        _ratio(joint[:, :, :N_TOKENS], pairs[:, :, :N_TOKENS, None], LEGAL_THIRD),
    )


def leaf_probabilities(distribution: ExpressionDistribution) -> np.ndarray:
    """`[N, 3000]` probability of each of `all_sequences()`."""
    sequences = all_sequences()
    one, two, three = sequences.T
    ended = two >= N_TOKENS
    pair = distribution.first[:, one] * distribution.second[:, one, two]
    return np.where(ended, pair, pair * distribution.third[:, one, np.where(ended, 0, two), three])


def _ratio(part: np.ndarray, whole: np.ndarray, legal: np.ndarray) -> np.ndarray:
    """part / whole, and equal shares of what is legal where the whole is too small to be divided."""
    uniform = np.broadcast_to(legal / legal.sum(axis=-1, keepdims=True), part.shape)
    return np.divide(part, whole, out=uniform.copy(), where=np.broadcast_to(whole > 1e-300, part.shape))


def _ancestry(trie: ExpressionTrie, context: np.ndarray) -> np.ndarray:
    """`[C, C]` bool: which context nodes lie on the path to which, itself included."""
    place = {int(node): index for index, node in enumerate(context)}
    sees = np.eye(len(context), dtype=bool)
    for index, node in enumerate(context):
        above = int(trie.parent[node])
        if above:
            sees[index] |= sees[place[above]]
    return sees


def _shared_prefix(prompts: list[list[int]]) -> int:
    """Tokens that all prompts begin with; at least one is left to each prompt."""
    low, high = min(prompts), max(prompts)
    limit = min(map(len, prompts)) - 1
    shared = 0
    while shared < limit and low[shared] == high[shared]:
        shared += 1
    return shared


def _backbone(model: Any) -> Any:
    """The model below the head, adapters included."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.get_decoder()


def _repeated(cache: Any, count: int) -> Any:
    """The cache of one sequence as the cache of `count` equal ones."""
    from transformers import DynamicCache

    copy = DynamicCache()
    for index, layer in enumerate(cache.layers):
        copy.update(layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1), index)
    return copy
