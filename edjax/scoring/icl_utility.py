"""How much each row of a pool helps the model with each other one, as an example before it (DELIFT's utility)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from edjax.data.pool import Pool
from edjax.keep.errors import DataError
from edjax.lm.bounds import Row
from edjax.scoring.icl_prompts import END, EXAMPLE, Wording, pieces
from edjax.scoring.job import Asked, Job, Measure

MOST = 2000  # rows above which somebody should have agreed to the cost
_WIDTHS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)  # few: what an example is padded to costs no pass of tokens


class Contexts:
    """The tokens of every pair of rows, in two parts: what stands before the query, and the query with its response.

    A row without a response, or one of which a token was cut, is neither example nor query: `usable` (n,) bool.
    """

    def __init__(self, encoder: Any, rows: Sequence[Row], responses: Sequence[str | None], wording: Wording):
        self.most = encoder.bounds.length
        self.usable = np.asarray([a is not None and not r.cut for r, a in zip(rows, responses, strict=True)], bool)
        self._rows, self._end = rows, encoder.end
        self._begin = _beginning(encoder.tokenizer.bos_token_id, [r.prompt for r in rows if not r.cut])
        texts = {text: encoder.response(text)[:-1] for part in wording for text, _ in pieces(part)}
        self._shown = [(texts[text], place) for text, place in pieces(wording.shown)]
        self._alone = [(texts[text], place) for text, place in pieces(wording.alone)]

    @property
    def there(self) -> list[int]:
        """The usable rows."""
        found: list[int] = np.flatnonzero(self.usable).tolist()
        return found

    def alone(self) -> list[int]:
        """What stands before a query without an example."""
        return self._filled(self._alone, {})

    def shown(self, example: int) -> list[int]:
        """What stands before a query with this row as the example."""
        row = self._rows[example]
        return self._filled(self._shown, dict(zip(EXAMPLE, (self._own(row), row.response), strict=True)))

    def query(self, row: int) -> tuple[list[int], list[int]]:
        """The tokens of a row's prompt and of its response."""
        return self._own(self._rows[row]), self._rows[row].response

    def _own(self, row: Row) -> list[int]:
        """A prompt without the token that begins all of them, which stands once, at the very beginning."""
        return row.prompt[len(self._begin) :]

    def _filled(self, parts: Sequence[tuple[list[int], str]], filled: dict[str, list[int]]) -> list[int]:
        made, filled = [*self._begin], {END: [self._end], **filled}
        for tokens, place in parts:
            made += [*tokens, *filled.get(place, [])]
        return made


def _beginning(token: int | None, prompts: Sequence[Sequence[int]]) -> list[int]:
    """The token of a tokenizer that begins every prompt and comes in none again, as a list; a chat template's mark of a
    turn is no such token."""
    every = all(p[0] == token and token not in p[1:] for p in prompts)
    return [token] if token is not None and prompts and every else []


def dear(asked: Asked) -> str | None:
    """What the probe takes, in a clause, where that is so much that somebody should agree to it; None below that.

    Pairs are those of rows with responses.

    Tokens are those of prompts, responses and words, without padding; FLOP are 2 a token and weight, as of products
    with the weights alone.
    """
    pool, job = asked.pool, asked.job
    answered = sum(response is not None for response in pool.responses)
    if answered <= MOST:
        return None
    import jax

    tokens = _tokens(_contexts(pool, job), len(job.layout.shards))
    weights = sum(x.size for x in jax.tree.leaves(job.forward.model) if hasattr(x, "size"))
    return (
        f"passes every pair of {answered:,} rows with responses through the model, {tokens:.1e} tokens and "
        f"{2 * tokens * weights:.1e} FLOP; score fewer rows, a part that a selection chose say"
    )


def unmeasured(asked: Asked) -> str | None:
    """A note on pairs that will not be measured, and why; None where all will be.

    Raises:
      DataError: none will be.
    """
    contexts = _contexts(asked.pool, asked.job)
    usable, n = contexts.there, len(asked.pool)
    lengths, before = _lengths(contexts)
    known = lengths + len(contexts.alone()) <= contexts.most
    pairs = int(((lengths[:, None] + before <= contexts.most) & known[:, None]).sum())
    if pairs == n * n:
        return None
    without = n - len(usable)
    why = (
        f"{without:,} {'row has no response or is' if without == 1 else 'rows have no response or are'} cut, and "
        f"example and query must fit into {contexts.most} tokens together (max_length, or the model's window)"
    )
    if not pairs:
        raise DataError(f"{asked.pool.source}: the probe icl_utility can measure no pair of rows: {why}")
    return f"icl_utility: {n * n - pairs:,} of {n * n:,} pairs are not measured and help nothing: {why}"


def _tokens(contexts: Contexts, shards: int) -> int:
    """Of all passes: an example once a shard, a query once an example and once alone."""
    asked, before = _lengths(contexts)
    return int(shards * (before.sum() + len(contexts.alone())) + (len(before) + 1) * asked.sum())


def _lengths(contexts: Contexts) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens every usable row has as a query with its response, and as an example with the words around it."""
    asked = [len(prompt) + len(response) for prompt, response in map(contexts.query, contexts.there)]
    return np.asarray(asked, np.int64), np.asarray([len(contexts.shown(j)) for j in contexts.there], np.int64)


def _contexts(pool: Pool, job: Job) -> Contexts:
    if not any(r is not None for r in pool.responses):
        raise DataError(f"{pool.source}: no row has a response, and the probe icl_utility measures these")
    rows = job.encoder.rows(pool.ids, pool.messages, pool.responses, tools=pool.tools, source=pool.source)
    return Contexts(job.encoder, rows, pool.responses, Wording(**job.settings["icl_prompts"]))


class _Queries(NamedTuple):
    """Some rows as a batch: `part` (r,), their places; `tokens` (b, t) int32, prompt and response, right-padded;
    `first` (b,) int32, the place of the last prompt token; `targets` (b, m) int32, the responses, and their `counts`
    (b,) int32, 0 for a row that only fills the batch. `lengths` (r,) int of the tokens."""

    part: np.ndarray
    tokens: np.ndarray
    first: np.ndarray
    targets: np.ndarray
    counts: np.ndarray
    lengths: np.ndarray


def _batches(asked: Sequence[tuple[list[int], list[int]]], batch_size: int, shards: int) -> Iterator[_Queries]:
    """Queries of about one length together."""
    from edjax.lm.batch import TRAINED
    from edjax.lm.batching import bucket, by_length, chunks, height, pad

    for part in chunks(by_length([len(p) + len(r) for p, r in asked]), batch_size):
        some, rows = [asked[i] for i in part], height(len(part), batch_size, shards)
        tokens, lengths = pad([[*p, *r] for p, r in some], rows)
        width = bucket(max(len(r) for _, r in some), TRAINED)
        targets, counts = pad([r for _, r in some], rows, width)
        first = np.zeros(rows, np.int32)
        first[: len(part)] = [len(p) - 1 for p, _ in some]
        yield _Queries(part, tokens, first, targets, counts, lengths[: len(part)])


def utilities(asked: Asked) -> Measure:
    """U_ij = d_i(alone) - d_i(after example j), d_i = ||1 - p||_2 / sqrt(T_i), of the pool's rows i and all rows j.

    p (T_i,) are the probabilities of the tokens of row i's response, teacher-forced, the token that ends it included;
    so U is between -1 and 1, and positive where the example helps. After Agarwal, Killamsetty, Popa & Danilevsky 2024,
    arXiv 2411.04425; the words around example and query (`edjax.scoring.icl_prompts`) and the tokens of both, those
    that the row is trained on, are ours. An example is passed through the model once a shard, and all queries behind
    it, from its keys and values; of a pair one number leaves the device.

    `icl_utility` (r, n) float32: NaN where a row has no response, is longer than its bounds, or example and query do
    not fit into max_length (or the model's window) together: nothing is cut, and such a pair counts for nothing.

    Raises:
      DataError: no row has a response; or a row that cannot be encoded.

    Cost: n^2 T tokens for T a query. Memory: the cache of a batch, of an example and a query each.
    """
    from edjax.lm.batching import bucket, pad
    from edjax.lm.mesh import row_shards, using

    pool, job, mesh = asked.pool, asked.job, asked.session.devices
    batch_size = asked.config["batch_size"]
    contexts = _contexts(pool, job)
    usable, examples = contexts.usable, contexts.there
    shards = 1 if mesh is None else row_shards(mesh)
    model = job.forward.model

    def distances(before: list[int], batches: Sequence[_Queries], count: int) -> np.ndarray:
        """d (count,) of queries after these tokens; NaN where they do not fit."""
        prefill, squares = _programs()
        found, made = np.full(count, np.nan), []
        some = [b for b in batches if len(before) + b.lengths.min() <= contexts.most]
        if not some:
            return found
        with using(mesh):
            tokens, _ = pad([before] * shards, shards, bucket(len(before), _WIDTHS))
            cache, length = prefill(model, tokens), np.int32(len(before))
            for b in some:
                made.append(squares(model, cache, length, b.tokens, b.first, b.targets, b.counts))
        for b, sums in zip(some, made, strict=True):
            fits = len(before) + b.lengths <= contexts.most
            total = np.asarray(sums, np.float64)[: len(b.part)]
            found[b.part] = np.where(fits, np.sqrt(total / b.counts[: len(b.part)]), np.nan)
        return found

    def measure(rows: np.ndarray) -> dict[str, np.ndarray]:
        utility = np.full((len(rows), len(pool)), np.nan, np.float32)
        there = np.flatnonzero(usable[rows])
        batches = (
            list(_batches([contexts.query(int(i)) for i in rows[there]], batch_size, shards)) if len(there) else []
        )
        if not batches:
            return {"icl_utility": utility}
        alone = distances(contexts.alone(), batches, len(there))
        for j in examples:
            utility[there, j] = alone - distances(contexts.shown(j), batches, len(there))
        return {"icl_utility": utility}

    return measure


@functools.cache
def _programs() -> tuple[Any, Any]:
    """An example's keys and values; and of queries behind it the sums of (1 - p)^2 over their responses."""
    import jax
    import jax.numpy as jnp

    from edjax.lm.decoder import Cache
    from edjax.lm.head import token_nll

    def prefill(model, tokens):
        return model.prefill(tokens)[2]

    def squares(model, cache, length, tokens, first, targets, counts):
        (b, t), slots = tokens.shape, cache.k.shape[2]
        # Rows of the cache are copies of one example: there are as many as devices that rows are shared out to.
        k, v = (jnp.broadcast_to(a[:, :1], (a.shape[0], b, *a.shape[2:])) for a in cache)
        valid = jnp.broadcast_to(jnp.arange(slots + t) < length, (b, slots + t))
        positions = jnp.broadcast_to(length + jnp.arange(t), (b, t))
        hidden, _ = model.extend(tokens, Cache(k, v).grow(t), slots, positions, valid)
        m = targets.shape[1]
        where = jnp.minimum(first[:, None] + jnp.arange(m), t - 1)
        states = jnp.take_along_axis(hidden, where[..., None], axis=1)
        lacking = jnp.expm1(-token_nll(model, states, targets))  # p - 1, which keeps its digits where p is nearly 1
        return jnp.sum(jnp.where(jnp.arange(m) < counts[:, None], lacking**2, 0), axis=1)

    return jax.jit(prefill), jax.jit(squares)
