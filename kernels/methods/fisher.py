"""FisherSFT: the rows whose tokens together carry the most information about the last layer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import checks, float64, geometry
from ..from_gains import from_gains
from ..geometry import Precision
from ..ground import Ground, Method, method, option
from ..objective import Objective
from ..shapes import Plan, Shape, resident
from .d_optimal import DEFAULT_RIDGE, check_ridge, ridge_in

_SEGMENTS = 16  # tokens a row that a plan counts with, where it knows the numbers of a row alone


@method
class Fisher(Method):
    """Pick rows greedily to maximise ln det(ridge I + sum_{i in S} H_i^T H_i).

    H_i (t, r) are the states of row i's tokens. With V that matrix of the picks, the gain of row i is
    ln det(I + H_i V^-1 H_i^T). FisherSFT (Deb, Thekumparampil, Kalantari, Hiranandani, Sabach & Kveton 2025, arXiv
    2505.14826); with one token a row it is D-optimal design. At least 1 - 1/e of the best value (Nemhauser, Wolsey &
    Fisher 1978). Rows of more tokens gain more: `per_token` divides a gain by them.

    columns: "tokens" (n, t, r), states of the tokens, or of segments of them, in r dimensions to which they were
    projected (ours: the paper's are whole); rows of fewer tokens are filled up with zeros, which count for nothing. A
    row that holds NaN is picked last. given: rows that are labelled start V. ridge: in squared units of the states;
    default 0.1 of the mean of |H_i|^2 (ours).

    Cost: 2 n t r (r + t) FLOPs for the first gains, then 128 t r (r + t) and r^3 a pick. Memory: 8 n t r bytes.

    >>> from ..ground import select
    >>> tokens = jnp.array([[[1.0, 0], [1, 0]], [[0, 1], [0, 0]], [[0.6, 0.6], [0, 0]], [[0, 0.9], [0.9, 0]]])
    >>> picks = select(Fisher(ridge=1.0), Ground({"tokens": tokens}), 4)
    >>> picks.indices.tolist(), [round(float(g), 4) for g in picks.gains]
    ([3, 0, 1, 2], [1.1867, 0.7443, 0.4399, 0.201])
    """

    ridge: Any = option(
        "in squared units of the states; default 0.1 of a row's mean square", default=None, traced=True, above=0
    )
    per_token: bool = option("gains are divided by the row's tokens", default=False)

    name = "fisher"
    summary = "tokens that tell most about the last layer: log-determinant of their information"
    paper = "Deb et al. 2025, arXiv 2505.14826"
    needs = ("tokens",)

    @property
    def dims(self) -> Mapping[str, int]:
        return {"tokens": 3}

    def block_for(self, n: int, m: int) -> int:
        return 64

    def ready(self, ground: Ground, key: jax.Array | None) -> "tuple[Fisher, Ground]":
        h = ground.columns["tokens"]
        if 0 in h.shape[1:]:
            raise ValueError(f"tokens must hold a token and a feature at least, got shape {tuple(h.shape)}")
        n, t, r = h.shape
        h = checks.check_pool(h.reshape(n, t * r), "tokens").reshape(n, t, r)
        made = replace(self, ridge=check_ridge(self.ridge), per_token=bool(self.per_token))
        return made, ground._replace(columns={**ground.columns, "tokens": h})

    def objective(self, ground: Ground, *, block: int, precision: Precision, shards: int | None) -> Objective:
        h = ground.columns["tokens"].astype(jnp.float32)
        t, r = h.shape[1:]
        sound = jnp.isfinite(h).all(axis=(1, 2))
        h = jnp.where(sound[:, None, None], h, 0)
        scale = geometry.power_of_two(-geometry.exponent(jnp.max(jnp.abs(h), initial=0)))
        h = h * scale
        if self.ridge is None:
            ridge = DEFAULT_RIDGE * jnp.sum(jnp.square(h)) / jnp.maximum(jnp.sum(sound), 1)
            ridge = jnp.where(ridge > 0, ridge, 1)
        else:
            ridge = ridge_in(self.ridge, scale, 1.0)
        tokens = jnp.maximum(jnp.sum(jnp.any(h != 0, axis=2), axis=1), 1)

        def of_tile(root, h, tokens):
            u = geometry.matmul(h, root, precision)
            # The smaller of the two products: ln det(I + U U^T) = ln det(I + U^T U).
            product = "btr,bsr->bts" if t <= r else "btr,bts->brs"
            found = _log_det(jnp.einsum(product, u, u, precision=lax.Precision.HIGHEST))
            return found / tokens if self.per_token else found

        def gains(state, rows):
            return geometry.over_rows(lambda *some: of_tile(state[1], *some), *rows, width=t * r, shards=shards)

        def add(state, row):
            flat = row[0].T
            gram = state[0] + geometry.matmul(flat, flat, precision)
            eye = jnp.eye(r, dtype=jnp.float32)
            factor = jnp.linalg.cholesky(ridge * eye + (gram + gram.T) / 2)
            root = lax.linalg.triangular_solve(factor, eye, left_side=True, lower=True)
            # A ridge too small beside the gram matrix for float32 has no factor: then the last one is all there is.
            return gram, jnp.where(jnp.all(jnp.isfinite(root)), root, state[1])

        start = (jnp.zeros((r, r), jnp.float32), jnp.eye(r, dtype=jnp.float32) * lax.rsqrt(ridge))
        return from_gains((h, tokens), start, gains, add, given=ground.given, valid=sound)

    def gains(self, ground: Ground, rows: list[int]) -> np.ndarray:
        tokens = np.asarray(ground.columns["tokens"])
        flat, sound = float64.clean(tokens.reshape(len(tokens), -1))
        h: Any = flat.reshape(tokens.shape)
        ridge = self.ridge
        if ridge is None:
            ridge = DEFAULT_RIDGE * float(np.mean(np.sum(h[sound] ** 2, axis=(1, 2)))) or 1.0
        picked = h[rows].reshape(-1, h.shape[2])
        v = ridge * np.eye(h.shape[2]) + picked.T @ picked
        inside = np.eye(h.shape[1]) + h @ np.linalg.inv(v) @ h.transpose(0, 2, 1)
        found = np.linalg.slogdet(inside)[1]
        if self.per_token:
            found = found / np.maximum(np.any(h != 0, axis=2).sum(axis=1), 1)
        return np.where(sound, found, np.nan)

    def plan(self, shape: Shape, *, form: str | None = None, **how: Any) -> Plan:
        """d: numbers of a row, t r; taken to be 16 tokens where t is not known."""
        n, d = shape.n, shape.d
        t = min(_SEGMENTS, d)
        each = 2 * d * (d // t + t)
        block = min(shape.block or self.block_for(n, n), n)
        return resident(self.name, shape, form, n * each + block * each * shape.budget, 4 * 2 * block * d + 12 * n)


def _log_det(e: jax.Array) -> jax.Array:
    """ln det(I + E) of (b, t, t) positive semidefinite matrices.

    A Cholesky factorisation without the roots, of all at once. What is held is the remainder less I, so that the pivots
    are 1 + e, and ln(1 + e) keeps the digits of a small gain, which 1 + e itself has lost.
    """

    def step(i, carry):
        e, total = carry
        pivot = jnp.maximum(e[:, i, i], 0)
        column = e[:, :, i]
        less = column[:, :, None] * (column / (1 + pivot)[:, None])[:, None, :]
        return e - less, total + jnp.log1p(pivot)

    return lax.fori_loop(0, e.shape[1], step, (e, jnp.zeros(e.shape[0], jnp.float32)))[1]
