"""The loops that people write, in torch on the same device: one pass over the pool for every pick."""

from __future__ import annotations

import numpy as np
import torch


def on(x) -> torch.Tensor:
    """The same rows as a tensor, without a copy where the device allows it."""
    return torch.from_dlpack(x)


def _wait(x: torch.Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()


@torch.inference_mode()
def k_center(x: torch.Tensor, budget: int) -> np.ndarray:
    """Farthest first from the row nearest the mean, by a matrix-vector product a pick."""
    x = x - x.mean(0)
    norms = (x * x).sum(1)
    nearest = torch.full_like(norms, torch.inf)
    picks = torch.empty(budget, dtype=torch.long, device=x.device)
    j = norms.argmin()
    for t in range(budget):
        picks[t] = j
        torch.minimum(nearest, norms - 2 * torch.mv(x, x[j]) + norms[j], out=nearest)
        nearest[j] = -1
        j = nearest.argmax()
    _wait(x)
    return picks.cpu().numpy()


@torch.inference_mode()
def d_optimal(x: torch.Tensor, budget: int, ridge: float) -> np.ndarray:
    """The largest log-determinant by rank-one updates of the inverse."""
    inverse = torch.eye(x.shape[1], device=x.device) / ridge
    leverage = (x * x).sum(1) / ridge
    picks = torch.empty(budget, dtype=torch.long, device=x.device)
    for t in range(budget):
        j = leverage.argmax()
        picks[t] = j
        v = torch.mv(inverse, x[j])
        scale = 1 + torch.dot(x[j], v)
        leverage -= torch.mv(x, v).square_() / scale
        leverage[j] = -torch.inf
        inverse -= torch.outer(v, v) / scale
    _wait(x)
    return picks.cpu().numpy()


@torch.inference_mode()
def facility_location(x: torch.Tensor, budget: int, gamma: float, tile: int = 4096) -> np.ndarray:
    """All gains at every pick, on similarities that are kept."""
    norms = (x * x).sum(1)
    n = len(x)
    similar = torch.empty(n, n, device=x.device)
    for a in range(0, n, tile):
        square = norms[a : a + tile, None] + norms - 2 * (x[a : a + tile] @ x.T)
        similar[a : a + tile] = torch.exp(-square.clamp_(min=0) / gamma)
    best = torch.zeros(n, device=x.device)
    picks = torch.empty(budget, dtype=torch.long, device=x.device)
    gains = torch.empty(n, device=x.device)
    for t in range(budget):
        for a in range(0, n, tile):
            gains[a : a + tile] = (similar[a : a + tile] - best).clamp_(min=0).sum(1)
        j = gains.argmax()
        picks[t] = j
        torch.maximum(best, similar[j], out=best)
    _wait(x)
    return picks.cpu().numpy()
