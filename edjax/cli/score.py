"""`edjax score`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from edjax.cli import options
from edjax.cli.grouped import Grouped, from_settings, option
from edjax.lm.session import Session
from edjax.scoring.config import ScoreConfig


@click.command(cls=Grouped)
@click.argument("pool", nargs=-1, required=True, callback=options.one_or_more)
@options.MODEL
@options.OUT
@from_settings(ScoreConfig, switches=False)
@from_settings(Session, skip=("quantize",))
@options.pool_options
@option("--dry-run", is_flag=True, help="Say what it would take, from a probe of ten batches; write nothing.")
@options.OVERWRITE
@options.JSON
def score(
    pool: str | list[str],
    out: Path,
    reading: dict[str, Any],
    dry_run: bool,
    overwrite: bool,
    **settings: Any,
) -> None:
    """Embed every prompt of POOL and measure the model's uncertainty.

    \b
    Reads   POOL: .jsonl, .json, .csv, .tsv (also packed), .parquet, a directory of such or of `datasets`, a quoted
            pattern, a hub id, - for standard input; one or more
    Writes  OUT/shard-*.parquet: id, embedding, six scores, token counts, the decoded text
            with --probe response, from the responses that rows have: response_nll, mean_response_nll (nats a token),
            n_response_tokens
            with --probe tokens: states of the prompt's tokens in 16 segments, for the strategy fisher
            with --probe trajectory: mean_response_nll with each adapter of --checkpoints, of a small model's training
            with --probe icl_utility: for each pair of rows, how much one helps with the other as an example
    Prompts of the very same tokens are computed once. Stopped half-way, the same command goes on at the next shard.
    """
    from edjax.scoring import estimate
    from edjax.scoring import score as run_score
    from edjax.scoring.probes import PROBES, further

    options.use_compilation_cache()
    rows = options.read(pool, reading)
    if dry_run:
        from edjax.scoring.dry_run import describe

        del settings["yes"]
        if more := further(settings["probes"]):
            large = sum(PROBES[name].bytes(len(rows)) for name in more) * len(rows)
            room = f"; what it leaves takes up to {large / 1e6:,.1f} MB of memory and disk" if large else ""
            options.note(f"the pass of {', '.join(more)} is not in what follows{room}")
        found = estimate(rows, log=options.note, **settings)
        options.tell(found._asdict(), *describe(found, out))
        return
    features = run_score(rows, out=out, overwrite=overwrite, log=options.note, **settings)
    budget = "100" if len(features) >= 1000 else "10%"  # 100 of a small pool is all of it
    next_step = f"edjax select {shlex.join([str(out), *options.named(pool)])} --budget {budget} --out DIR"
    options.tell(
        {"rows": len(features), "features": features.embeddings.shape[1], "scores": list(features.scores), "out": out},
        f"{len(features)} prompts x {features.embeddings.shape[1]} features in {out}",
        f"next: {next_step}",
    )
