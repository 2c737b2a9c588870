"""The pool scored by the model: embeddings, and the uncertainties of 16 tokens."""

from __future__ import annotations

import json
import time

import numpy as np

from benchmarks.accelerator import kept
from benchmarks.accelerator.places import pool_of, recipe_of
from benchmarks.accelerator.stage import Stage

SHARD = 4  # batches


def run(stage: Stage) -> bool:
    """Score what is not kept yet; the process that started this one keeps what is done (`kept.keep`)."""
    from edjax.scoring import score

    recipe, pool = recipe_of(stage), pool_of(stage)
    have = kept.read(stage.out)
    if have is not None and have.pool != pool.digest:
        raise SystemExit(f"{stage.out} keeps the features of another pool; name another folder")
    left = np.setdiff1d(np.arange(len(pool)), [] if have is None else have.rows)

    def scored() -> dict:
        folder = stage.work / "score" / str(len(pool) - len(left))
        folder.mkdir(parents=True, exist_ok=True)
        which = {"rows": left.tolist(), "pool": pool.digest, "dimensions": stage.sizes.dimensions}
        (folder / "which.json").write_text(json.dumps(which))
        start = time.monotonic()
        features = score(
            pool.take(left),
            recipe.model,
            out=folder / "features",
            layer=recipe.layer,
            pooling=recipe.pooling,
            max_new_tokens=recipe.max_new_tokens,
            template=recipe.template,
            max_length=recipe.finetune_config(0).max_length,
            batch_size=recipe.score_batch_size,
            shard_rows=SHARD * recipe.score_batch_size,
            dtype=recipe.dtype,
            show_progress=False,
        )
        seconds = time.monotonic() - start
        tokens = int(features.facts["n_prompt_tokens"].sum())
        return {"rows": len(left), "prompt_tokens": tokens, "score_s": seconds, "prompts_per_s": len(left) / seconds}

    if not len(left):
        return True
    return stage.job(f"{len(pool):,} prompts from row {len(pool) - len(left):,}", scored)
