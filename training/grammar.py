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
from training.tree_attention import NOWHERE, ReadPrompts, tree_attention, tree_of

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

    What all prompts begin with is read once per call; each prompt is read once; and all choices of the
    grammar are read beside each other, each seeing its prompt and its own path only. Nothing that was read
    outlives a call of `score`, so a model may change, switch or merge adapters, or move, between calls.

    Args:
        model: A causal language model, with or without adapters; used as it is when `score` is called.
        grammar: The grammar of its tokenizer.
        batch_size: Prompts per forward pass. A few fill a processor's caches; an accelerator likes more.

    Raises:
        ConfigurationError: The grammar's tokens are not the model's.
    """

    def __init__(self, model: Any, grammar: AnswerGrammar, batch_size: int = 8) -> None:
        known = len(model.get_output_embeddings().weight)
        if max(grammar.trie.token) >= known:
            raise ConfigurationError(
                found=f"a grammar of token {max(grammar.trie.token)}, for a model that knows {known}",
                expected="the grammar of the model's own tokenizer",
                next="make the grammar with the tokenizer from the model's folder",
            )
        self.model = model
        self.grammar = grammar
        self.batch_size = batch_size
        trie = grammar.trie
        choices = trie.choices()
        # Up to the first choice every answer is the same: those tokens are read as the prompt's end.
        start = int(choices[0])
        self._forced = trie.token[trie.path(start)].tolist()
        context = np.setdiff1d(trie.context(), [start, *trie.path(start)])
        place = np.full(len(trie.token), NOWHERE)
        place[context] = np.arange(len(context))
        self._tokens = trie.token[context]
        self._depths = trie.depth[context] - trie.depth[start]
        self._shared, self._sees = tree_of(place[trie.parent[context]])
        self._choices = place[choices[1:]]
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

        Raises:
            ConfigurationError: The model's attention cannot be chosen.
        """
        import torch

        prompts = [prompt + self._forced for prompt in prompts]
        shared = _shared_prefix(prompts)
        order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
        leaves: list[np.ndarray] = [np.zeros(0)] * len(prompts)
        hidden: list[np.ndarray] = [np.zeros(0)] * len(prompts)
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                prefix = self._read_prefix(prompts[0][:shared]) if shared else None
                for start in range(0, len(order), self.batch_size):
                    chosen = order[start : start + self.batch_size]
                    scores, states = self._forward([prompts[i][shared:] for i in chosen], shared, prefix)
                    for index, score, state in zip(chosen, scores, states, strict=True):
                        leaves[index], hidden[index] = score, state
                    if progress is not None:
                        progress(start + len(chosen))
        finally:
            self.model.train(was_training)
        return distribution_of(np.stack(leaves)), np.stack(hidden)

    def _read_prefix(self, tokens: list[int]) -> Any:
        import torch

        ids = torch.tensor([tokens], device=self.model.device)
        return _backbone(self.model)(input_ids=ids, use_cache=True).past_key_values

    def _forward(self, own: list[list[int]], shared: int, prefix: Any) -> tuple[np.ndarray, np.ndarray]:
        """`[B, 3000]` log-probabilities of the expressions and `[B, H]` hidden states.

        Args:
            own: What each of B prompts holds beyond the beginning that all share.
            shared: Length of that beginning.
            prefix: Its keys and values; None where it is empty.
        """
        import torch

        lengths = torch.tensor([len(tokens) for tokens in own], device=self.model.device)
        cache, ends = self._read_own(own, lengths, shared, prefix)
        below = self._read_tree(cache, lengths, shared)
        choices = torch.from_numpy(self._choices).to(below.device)
        states = torch.cat([ends[:, None], below[:, choices]], dim=1).float()
        head = self.model.get_output_embeddings().weight[torch.from_numpy(self._options).to(below.device)]
        return self._leaves((states @ head.float().T).cpu().numpy()), ends.float().cpu().numpy()

    def _read_own(self, own: list[list[int]], lengths: Any, shared: int, prefix: Any) -> tuple[Any, Any]:
        """Keys and values of the prompts, and `[B, H]` the states after their ends.

        Padding follows a prompt, where none of its tokens sees it: positions and masks stay the plain ones.
        """
        import torch

        longest = max(map(len, own))
        padded = [tokens + [tokens[-1]] * (longest - len(tokens)) for tokens in own]
        read = _backbone(self.model)(
            input_ids=torch.tensor(padded, device=lengths.device),
            position_ids=shared + torch.arange(longest, device=lengths.device)[None].expand(len(own), -1),
            past_key_values=_repeated(prefix, len(own)) if prefix is not None else None,
            use_cache=True,
        )
        rows = torch.arange(len(own), device=lengths.device)
        return read.past_key_values, read.last_hidden_state[rows, lengths - 1]

    def _read_tree(self, cache: Any, lengths: Any, shared: int) -> Any:
        """`[B, C, H]` states after every token of the grammar after which there is a choice."""
        import torch

        device, kind = lengths.device, cache.layers[0].keys.dtype
        longest = int(lengths.max())
        padding = torch.arange(shared + longest, device=device)[None] >= shared + lengths[:, None]
        elsewhere = torch.from_numpy(~self._sees).to(device)
        unseen = torch.zeros(
            len(lengths), len(elsewhere), shared + longest + elsewhere.shape[1] + 1, device=device, dtype=kind
        )
        unseen[..., : shared + longest].masked_fill_(padding[:, None], float("-inf"))
        unseen[..., shared + longest : -1].masked_fill_(elsewhere[None], float("-inf"))
        read = ReadPrompts(
            layers=[(layer.keys, layer.values) for layer in cache.layers],
            shared=torch.from_numpy(self._shared).to(device),
            unseen=unseen,
        )
        depths = torch.from_numpy(self._depths).to(device)
        inner = _plain(self.model)
        with tree_attention(inner):
            return inner.get_decoder()(
                input_ids=torch.from_numpy(self._tokens).to(device)[None].expand(len(lengths), -1),
                position_ids=shared + lengths[:, None] - 1 + depths[None],
                use_cache=False,
                read=read,
            ).last_hidden_state

    def _leaves(self, logits: np.ndarray) -> np.ndarray:
        trie = self.grammar.trie
        found = logits[:, np.arange(len(self._columns))[:, None], np.maximum(self._columns, 0)]
        found = np.where(self._columns == NO_CHILD, -np.inf, found.astype(np.float64))
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


def _shared_prefix(prompts: list[list[int]]) -> int:
    """Tokens that all prompts begin with; at least one is left to each prompt."""
    low, high = min(prompts), max(prompts)
    limit = min(map(len, prompts)) - 1
    shared = 0
    while shared < limit and low[shared] == high[shared]:
        shared += 1
    return shared


def _plain(model: Any) -> Any:
    """The causal model itself where peft wraps it; its layers keep their adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _backbone(model: Any) -> Any:
    """The model below the head, adapters included."""
    return _plain(model).get_decoder()


def _repeated(cache: Any, count: int) -> Any:
    """The cache of one sequence as the cache of `count` equal ones."""
    from transformers import DynamicCache

    copy = DynamicCache()
    for index, layer in enumerate(cache.layers):
        copy.update(layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1), index)
    return copy
