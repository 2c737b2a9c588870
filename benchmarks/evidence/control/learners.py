"""Learners that are fixed and have a closed form, so that nothing but the choice of rows differs between arms.

All are ridge regression from a prompt's embedding: to its label, one-hot; or to the embedding of its answer, by the
same model, of which the nearest by cosine is taken: among the choices of the row, or among all answers held out. The
space of answers is made once from all answers of the set, for every arm alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from benchmarks.evidence.control.splits import HELD_OUT
from edjax.data.features import Features
from edjax.selection.prepared import prepare

Score = float


def linear(x: np.ndarray, targets: np.ndarray, rows: np.ndarray, held: np.ndarray, ridge: float) -> np.ndarray:
    """Predictions for rows `held` of least squares from x to the `targets` (k, t) of `rows`, with an intercept:

    W = argmin sum_i ||t_i - x_i W||^2 + ridge ||W||^2, by its dual (k, k) system in float64.
    """
    a, b = (np.column_stack([x[r], np.ones(len(r))]).astype(np.float64) for r in (rows, held))
    dual = np.linalg.solve(a @ a.T + ridge * np.eye(len(rows)), targets)
    return b @ (a.T @ dual)


def accuracy(x: np.ndarray, y: np.ndarray, rows: np.ndarray, held: np.ndarray, ridge: float) -> Score:
    """Macro accuracy on rows `held` of the probe on one-hot labels of `rows`."""
    targets = (y[rows][:, None] == np.arange(y.max() + 1)).astype(np.float64)
    right = linear(x, targets, rows, held, ridge).argmax(1) == y[held]
    return float(np.mean([right[y[held] == label].mean() for label in np.unique(y[held])]))


def learned(features: Features, candidates: np.ndarray, how: str) -> np.ndarray:
    """The features that a learner sees, prepared by what is known of the candidates."""
    x = np.asarray(features.embeddings)
    if how == "whiten":
        return prepare(x, "whiten", fitted_on=candidates)
    x = x - x[candidates].mean(0, dtype=np.float64).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@dataclass(frozen=True)
class Labels:
    """Which label a prompt has."""

    y: np.ndarray
    metric = "macro accuracy"

    def score(self, x: np.ndarray, rows: np.ndarray, held: np.ndarray, ridge: float, how: str) -> Score:
        return accuracy(x, self.y, rows, held, ridge)

    def chance(self) -> float:
        return 1 / (int(self.y.max()) + 1)


@dataclass(frozen=True)
class Answers:
    """Embeddings of answers; truth: (n,) which of them is each row's. `spaces` keeps what was prepared."""

    embeddings: np.ndarray
    truth: np.ndarray
    spaces: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def directions(self, how: str) -> np.ndarray:
        if how not in self.spaces:
            self.spaces[how] = prepare(self.embeddings, how).astype(np.float64)
        return self.spaces[how]

    def predicted(self, x: np.ndarray, rows: np.ndarray, held: np.ndarray, ridge: float, how: str) -> np.ndarray:
        return linear(x, self.directions(how)[self.truth[rows]], rows, held, ridge)


@dataclass(frozen=True)
class Choices(Answers):
    """Which of a row's choices is its answer. options: (n, c) numbers of answers, -1 beyond its last."""

    options: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    metric = "accuracy"

    def score(self, x: np.ndarray, rows: np.ndarray, held: np.ndarray, ridge: float, how: str) -> Score:
        options, guessed = self.options[held], self.predicted(x, rows, held, ridge, how)
        near = np.einsum("hd,hcd->hc", guessed, self.directions(how)[options])
        best = np.where(options >= 0, near, -np.inf).argmax(1)
        return float((options[np.arange(len(held)), best] == self.truth[held]).mean())

    def chance(self) -> float:
        return float((1 / (self.options >= 0).sum(1)).mean())


@dataclass(frozen=True)
class Retrieval(Answers):
    """Mean reciprocal rank of a row's written answer among all answers held out: how near a linear model comes to what
    was written, without writing. It needs no word of the answer right, rises with every label and has a chance level;
    R^2 would be the spread of the embeddings' few large directions."""

    metric = "mean reciprocal rank"

    def score(self, x: np.ndarray, rows: np.ndarray, held: np.ndarray, ridge: float, how: str) -> Score:
        among, mine = np.unique(self.truth[held], return_inverse=True)
        near = self.predicted(x, rows, held, ridge, how) @ self.directions(how)[among].T
        return float((1 / (near >= near[np.arange(len(held)), mine][:, None]).sum(1)).mean())

    def chance(self) -> float:
        held = max(1, round(len(self.truth) * HELD_OUT))
        return float((1 / np.arange(1, held + 1)).mean())


Learner = Labels | Choices | Retrieval
