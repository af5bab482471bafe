"""The grammar of answers in a tokenizer's own tokens: constrained decoding, and exact distributions.

Every legal expression is written out and tokenized; the token sequences form a trie. Decoding that may only
follow the trie always answers legally, and the product of its renormalised next-token probabilities on a path
is the exact probability of an expression: no sample is needed to know what a model would say.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from eisv_lumen.distribution import LEGAL_SECOND, LEGAL_THIRD, ExpressionDistribution
from eisv_lumen.errors import ConfigurationError
from eisv_lumen.expression import Expression, all_sequences
from eisv_lumen.vocabulary import LUMEN_WORDS, N_CLASSES, N_TOKENS, PATTERNS
from training.dialogue import Form, answer_ids, expression_text
from training.llama_tree import LlamaReader, reads
from training.tree_attention import NOWHERE, PlainReader, Tree

NO_CHILD = -1
_LARGE_BLOCK = 24 << 20
"""Bytes; above 32 MiB the C library would not remember it."""
_AGREES, _AGREES_HALF = 1e-3, 0.5
"""Most by which log-probabilities may lie apart from the model's own, in single and in half precision."""


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

    def __init__(self, model: Any, grammar: AnswerGrammar, batch_size: int = 16) -> None:
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
        depths = trie.depth[context] - trie.depth[start]
        self._tree = Tree.of(trie.token[context], depths, place[trie.parent[context]])
        self._choices = place[choices[1:]]
        self._options, self._illegal, self._steps = _steps_of(trie)

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
        leaves: list[np.ndarray] = [np.zeros(0)] * len(prompts)
        hidden: list[np.ndarray] = [np.zeros(0)] * len(prompts)
        done, was_training = 0, self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                reader = self._reader(prompts[0], shared)
                for chosen in _alike(prompts, self.batch_size):
                    scores, states = self._forward(reader, [prompts[i][shared:] for i in chosen])
                    for index, score, state in zip(chosen, scores, states, strict=True):
                        leaves[index], hidden[index] = score, state
                    done += len(chosen)
                    if progress is not None:
                        progress(done)
        finally:
            self.model.train(was_training)
        return distribution_of(np.stack(leaves)), np.stack(hidden)

    def _reader(self, prompt: list[int], shared: int) -> LlamaReader | PlainReader:
        """What reads prompts that begin as this one: the quick one where it knows the model's build.

        Hooks, patches, adapters of some kinds and builds that do more to a logit than to multiply state and
        head would make an answer wrong and not show; so what is read must agree with the model's own logits.
        """
        import torch

        inner, tree, prefix = _plain(self.model), self._tree, prompt[:shared]
        decoder = inner.get_decoder()
        kinds: list[Callable[[], LlamaReader | PlainReader]] = [lambda: PlainReader(inner, tree, prefix)]
        if reads(decoder):
            kinds.insert(0, lambda: LlamaReader(decoder, tree, prefix))
        for make in kinds:
            try:
                reader = make()
                if self._agrees(reader, prompt, shared):
                    _keep_freed_memory()
                    return reader
            except torch.OutOfMemoryError:  # says nothing about the build
                raise
            except (AttributeError, IndexError, TypeError, RuntimeError):
                continue
        raise ConfigurationError(
            found=f"{type(inner).__name__}, whose logits are not its last states times its head",
            expected="a causal language model that can be read without its own way to logits",
            next="take a base of another build, such as Llama's or Qwen's, and adapters on its layers",
        )

    def _agrees(self, reader: LlamaReader | PlainReader, prompt: list[int], shared: int) -> bool:
        import torch

        device = self.model.device
        options = torch.from_numpy(self._options).to(device)
        ends, _ = reader.read(torch.tensor([prompt[shared:]], device=device))
        head = self.model.get_output_embeddings().weight[options]
        own = (ends.float() @ head.float().T).log_softmax(dim=-1)
        whole = self.model(input_ids=torch.tensor([prompt], device=device)).logits[:, -1, options]
        apart = (own - whole.float().log_softmax(dim=-1)).abs().max()
        return bool(apart <= (_AGREES if ends.dtype == torch.float32 else _AGREES_HALF))

    def _forward(
        self, reader: LlamaReader | PlainReader, own: list[list[int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """`[B, 3000]` log-probabilities of the expressions and `[B, H]` hidden states.

        Args:
            reader: Knows what all prompts begin with.
            own: What each of B prompts of one length holds beyond that.
        """
        import torch

        device = self.model.device
        ends, below = reader.read(torch.tensor(own, device=device))
        states = torch.cat([ends[:, None], below[:, torch.from_numpy(self._choices).to(device)]], dim=1)
        head = self.model.get_output_embeddings().weight[torch.from_numpy(self._options).to(device)]
        logits = (states.float() @ head.float().T).double()
        logits.masked_fill_(torch.from_numpy(self._illegal).to(device), -torch.inf)
        # The last column, 0, is where a path has fewer choices than the longest.
        steps = torch.nn.functional.pad(logits.log_softmax(dim=-1).flatten(1), (0, 1))
        leaves = steps[:, torch.from_numpy(self._steps).to(device)].sum(dim=1)
        return leaves.cpu().numpy(), ends.float().cpu().numpy()


def _steps_of(trie: ExpressionTrie) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How a path's probability follows from what is said at each of the C choices.

    Returns:
        `[O]` every token that some choice offers, `[C, O]` bool where it is not offered, and `[S, 3000]` the
        flat places in such a table that each path goes through; C * O where it has fewer than S choices.
    """
    choices = trie.choices()
    options = np.unique(trie.token[trie.children[choices][trie.children[choices] != NO_CHILD]])
    illegal = np.ones((len(choices), len(options)), bool)
    place = np.full(len(trie.token), illegal.size)
    for index, choice in enumerate(choices):
        offered = trie.children[choice][trie.children[choice] != NO_CHILD]
        columns = np.searchsorted(options, trie.token[offered])
        illegal[index, columns] = False
        place[offered] = index * len(options) + columns
    paths = [[step for step in place[trie.path(leaf)] if step < illegal.size] for leaf in trie.leaf]
    steps = np.full((max(map(len, paths)), len(paths)), illegal.size)
    for leaf, path in enumerate(paths):
        steps[: len(path), leaf] = path
    return options, illegal, steps


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


def _alike(prompts: list[list[int]], most: int) -> Iterator[np.ndarray]:
    """Indices of prompts of one length, at most so many at a time: without padding there is none to mask."""
    lengths = np.array([len(prompt) for prompt in prompts])
    for length in np.unique(lengths):
        found = np.flatnonzero(lengths == length)
        for start in range(0, len(found), most):
            yield found[start : start + most]


def _keep_freed_memory() -> None:
    """Let glibc reuse what tensors free, instead of giving it back and having it zeroed page by page.

    The C library keeps freed memory up to twice the largest block it saw freed (mallopt(3), "dynamic mmap
    threshold"). The block is never written to, so it takes no memory itself; elsewhere this does nothing.
    """
    import torch

    torch.empty(_LARGE_BLOCK, dtype=torch.uint8)
