"""What a generated answer is worth beside the reference answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np


def normalise(text: str) -> str:
    """Lower case, single spaces, no quotes around and no full stop, ! or ? at the end.

    Milder than SQuAD's rule on purpose: inner punctuation and articles stay, so that "3.5" is not "35".
    """
    return " ".join(text.lower().split()).rstrip(" .!?\"'`").lstrip(" \"'`")


def final_answers(text: str, *, at_end: bool = True) -> list[str]:
    """What stands after "####" in the last line, where that begins with it, as in GSM8K (Cobbe et al. 2021), and the
    same without commas between digits; [] where it does not: a heading before a text is no answer.

    at_end: False takes the last such line wherever it stands: a model may go on after its answer.

    >>> final_answers("500 + 700 = 1200\\n#### 1,200")
    ['1,200', '1200']
    """
    end = r"\Z" if at_end else "$"
    found = re.findall(rf"^####[ \t]*(\S.*?)\s*{end}", text, re.MULTILINE)
    return list(dict.fromkeys([found[-1], re.sub(r"(?<=\d),(?=\d)", "", found[-1])])) if found else []


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1.0 where the normalised answer, or what it gives as its final one after "####", equals a normalised reference,
    else 0.0."""
    given = {normalise(text) for text in (answer, *final_answers(answer, at_end=False))}
    return float(not given.isdisjoint(normalise(r) for r in references))


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """ROUGE-L F-measure (Lin 2004) against the best reference, by Google's `rouge_score` with stemming.

    Its tokenizer keeps ASCII letters and digits only: text in other scripts scores 0.
    """
    return max(_rouge().score(r, answer)["rougeL"].fmeasure for r in references)


def macro_weights(groups: Sequence[str]) -> np.ndarray:
    """(n,) float64 the weights of rows for which their weighted mean is the mean over groups of each group's mean.

    >>> macro_weights(["a", "a", "b"]).tolist()
    [0.25, 0.25, 0.5]
    """
    _, place, count = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    return 1 / (len(count) * count[place])
