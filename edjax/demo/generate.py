"""Generate the demo's pool and evaluation set.

The pool is what pools are like: the size of a family falls with its rank as 1 / rank, and the few largest families ask
nearly everything in one phrasing, so a random sample sees the head again and again and most families hardly ever. The
evaluation set is balanced over the families: it measures each task equally.

Whether an item may enter the pool or the evaluation set depends on a hash of the item alone. So no evaluation prompt
occurs in the pool, nor any other phrasing of the same question (`group`), whatever the sizes and the seed.
"""

from __future__ import annotations

import hashlib
import json
from itertools import accumulate, pairwise
from pathlib import Path
from random import Random
from typing import Any

from edjax.demo import (
    families_arithmetic,
    families_facts,
    families_language,
    families_lists,
    families_strings,
    families_time,
)
from edjax.demo.families import REGISTRY, Family, Item
from edjax.keep.errors import UsageError
from edjax.keep.store import atomic_write

MODULES = (  # importing them fills REGISTRY
    families_arithmetic,
    families_facts,
    families_language,
    families_lists,
    families_strings,
    families_time,
)
HEAD = 5  # this many of the largest families ask nine of ten items in their first phrasing
GIVE_UP = 300  # a family is exhausted after so many draws in a row that were there before

Row = dict[str, Any]


def generate(n: int = 3000, n_eval: int = 300, seed: int = 0) -> tuple[list[Row], list[Row]]:
    """Make a long-tailed pool of `n` prompts and an evaluation set of `n_eval` balanced over the families.

    Args:
      n: rows of the pool.
      n_eval: rows of the evaluation set; families differ by one row where it is not a multiple of their number.
      seed: decides which family has which rank, and every draw. The same on every machine and Python.

    Returns:
      (pool, evaluation); a row has id, prompt, response, task (the family), group (the item, whatever its phrasing),
      answer_type ("short" or "choice"), refs (every right answer) and choices (the candidates, or None).

    Raises:
      UsageError: more rows than the families can give.
    """
    if n < 1 or n_eval < 0:
        raise UsageError(f"the demo pool needs n >= 1 and n_eval >= 0, not {n} and {n_eval}")
    names = ranking(seed)
    seen: set[str] = set()
    quota = [n_eval // len(names) + (i < n_eval % len(names)) for i in range(len(names))]
    evaluation: list[Row] = []
    for name, wanted in zip(names, quota, strict=True):
        rows = _Rows(REGISTRY[name], Random(f"edjax-demo/{seed}/eval/{name}"), seen, for_eval=True)
        evaluation += rows.take(wanted)
    pool: list[Row] = []
    makers = [
        _Rows(REGISTRY[name], Random(f"edjax-demo/{seed}/pool/{name}"), seen, skewed=rank < HEAD)
        for rank, name in enumerate(names)
    ]
    for maker, wanted in zip(makers, sizes(n, len(names)), strict=True):
        pool += maker.take(wanted)
    for maker in makers:  # what exhausted families owe, the largest others give
        pool += maker.take(n - len(pool))
    if len(pool) < n or len(evaluation) < n_eval:
        raise UsageError(
            f"the demo's families give {len(pool)} pool rows and {len(evaluation)} evaluation rows, "
            f"fewer than the {n} and {n_eval} asked for; ask for fewer"
        )
    Random(f"edjax-demo/{seed}/order").shuffle(pool)
    Random(f"edjax-demo/{seed}/eval-order").shuffle(evaluation)
    return _numbered(pool, "demo"), _numbered(evaluation, "demo-eval")


def write(directory: str | Path, n: int = 3000, n_eval: int = 300, seed: int = 0) -> tuple[Path, Path]:
    """Write `pool.jsonl` and `eval.jsonl` into a directory, each whole or not at all; returns their paths."""
    paths = Path(directory) / "pool.jsonl", Path(directory) / "eval.jsonl"
    for path, rows in zip(paths, generate(n, n_eval, seed), strict=True):
        with atomic_write(path) as f:
            f.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    return paths


def ranking(seed: int) -> list[str]:
    """Family names by size, largest first: a shuffle, in which families of few items stay out of the first ranks."""
    names = sorted(REGISTRY)
    Random(f"edjax-demo/{seed}/ranks").shuffle(names)
    head = [name for name in names if _is_large(REGISTRY[name])][: 2 * HEAD]
    return head + [name for name in names if name not in head]


def _is_large(family: Family) -> bool:
    """Whether a family has thousands of items: nearly all of 200 draws differ."""
    rng = Random(family.name)
    return len({str(family.make(rng).fields) for _ in range(200)}) >= 190


def sizes(n: int, families: int) -> list[int]:
    """Split n over ranks 1, 2, ... in proportion to 1 / rank, to the nearest whole numbers that sum to n."""
    ends = [
        0.0,
        *accumulate(1 / rank for rank in range(1, families + 1)),
    ]  # not sum(): Python 3.12 changed its rounding
    return [round(n * b / ends[-1]) - round(n * a / ends[-1]) for a, b in pairwise(ends)]


class _Rows:
    """Draws rows of one family that are not in `seen`; evaluation rows prefer items not yet used."""

    def __init__(self, family: Family, rng: Random, seen: set[str], for_eval: bool = False, skewed: bool = False):
        self.family, self.rng, self.seen, self.for_eval, self.skewed = family, rng, seen, for_eval, skewed
        self.groups: set[str] = set()

    def take(self, count: int) -> list[Row]:
        rows: list[Row] = []
        misses = 0
        while len(rows) < count and misses < GIVE_UP:
            misses += 1
            item = self.family.make(self.rng)
            phrasing = self._phrasing()
            prompt = phrasing.format(**item.fields)
            group = f"{self.family.name}:{'|'.join(str(v) for v in item.fields.values())}"
            if prompt in self.seen or _is_eval(group) != self.for_eval:
                continue
            if self.for_eval and group in self.groups and misses < GIVE_UP // 2:
                continue
            self.seen.add(prompt)
            self.groups.add(group)
            rows.append(_row(self.family.name, group, prompt, item))
            misses = 0
        return rows

    def _phrasing(self) -> str:
        if self.skewed and self.rng.random() < 0.9:
            return self.family.phrasings[0]
        return self.rng.choice(self.family.phrasings)


def _is_eval(group: str) -> bool:
    return hashlib.sha256(group.encode()).digest()[0] < 64  # one item in four


def _row(task: str, group: str, prompt: str, item: Item) -> Row:
    return {
        "id": "",
        "prompt": prompt,
        "response": item.answer,
        "task": task,
        "group": group,
        "answer_type": "choice" if item.choices else "short",
        "refs": [item.answer, *item.also],
        "choices": list(item.choices) if item.choices else None,
    }


def _numbered(rows: list[Row], prefix: str) -> list[Row]:
    return [{**row, "id": f"{prefix}-{i:05d}"} for i, row in enumerate(rows)]
