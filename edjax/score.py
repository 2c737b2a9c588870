"""One streaming pass of the base model over a pool: an embedding and six token uncertainties a prompt."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edjax.batching import batches, by_length, chunks
from edjax.errors import UsageError
from edjax.features import SCORES, Features, from_table, read_features
from edjax.pool import Pool
from edjax.progress import progress
from edjax.store import atomic_write, read_json, sha256_json, write_json, writing

if TYPE_CHECKING:
    import pyarrow as pa

    from edjax.lm.load import LoadedModel

POOLINGS = ("mean", "last", "weighted_mean")


def score(
    pool: Pool,
    model: str = "smollm2",
    *,
    out: str | Path | None = None,
    layer: int = -1,
    pooling: str = "mean",
    max_new_tokens: int = 16,
    template: str = "auto",
    max_length: int = 1024,
    batch_size: int = 32,
    shard_rows: int = 512,
    dtype: str = "float32",
    mesh: str = "",
    overwrite: bool = False,
    show_progress: bool = True,
    loaded: LoadedModel | None = None,
) -> Features:
    """Embed every prompt and measure how unsure the model is of its own greedy answer.

    The embedding is the chosen pooling of the hidden states of `layer` over the prompt's tokens, stored raw. The six
    scores are those of METHODS section 1, from at most `max_new_tokens` greedily decoded tokens, end-of-text
    included; 0 skips them. Rows run in order of length, so little is wasted on padding; padding and batch composition
    change no result beyond float rounding.

    Args:
      pool: the prompts. Responses are never looked at.
      model: a name as in `edjax.lm.load.locate`.
      out: directory of Parquet shards, resumable shard by shard; None keeps the features in memory only.
      layer: as `transformers` counts `hidden_states`: 0 the embeddings, -1 the last after the final norm.
      pooling: "mean", "last" token, or "weighted_mean" (weights 1..t, Muennighoff 2022).
      template, max_length: as in `edjax.lm.encode.Encoder`.
      batch_size: rows a batch. shard_rows: rows a shard.
      dtype: float32 or bfloat16 weights and activations; scores are float32 either way.
      mesh: devices to share the rows and the model among, as in `edjax.lm.mesh.parse_mesh`; of one process.
      loaded: the model, if the caller has it already.

    Raises:
      UsageError: an unknown pooling or layer; `out` was made with other settings; a mesh that does not fit the
        devices, the model or `batch_size`.
      DataError, EnvError: from the model.
    """
    if pooling not in POOLINGS:
        raise UsageError(f"pooling {pooling!r} is not one of {', '.join(POOLINGS)}")
    if max_new_tokens < 0 or batch_size < 1 or shard_rows < 1 or max_length < 1:
        raise UsageError("max_new_tokens is 0 or more; batch_size, shard_rows and max_length are 1 or more")
    from edjax.lm.load import digest, load, locate
    from edjax.lm.mesh import check_rows, parse_mesh

    devices = parse_mesh(mesh)
    check_rows(batch_size, devices)
    config = {
        "model": model,
        "layer": layer,
        "pooling": pooling,
        "max_new_tokens": max_new_tokens,
        "template": template,
        "max_length": max_length,
        "batch_size": batch_size,
        "shard_rows": shard_rows,
        "dtype": dtype,
    }
    source = loaded or (lambda: load(model, dtype, mesh=devices))
    scorer = functools.partial(_shards, pool, source, config, devices, show_progress)
    if out is None:
        import pyarrow as pa

        table = pa.concat_tables([t for _, t in scorer(lambda _: False)]).sort_by("row").drop_columns("row")
        return from_table(table, sha256_json({"pool": pool.digest, **config}), "scored pool")
    out = Path(out)
    inputs = {"pool": pool.digest, "model": digest(loaded.directory if loaded else locate(model))}
    with writing(out, kind="features", config=config, inputs=inputs, overwrite=overwrite) as artifact:
        if not artifact.complete:
            spent = read_json(out / "timing.json") if (out / "timing.json").exists() else {}
            start = time.monotonic()
            for name, table in scorer(lambda name: (out / name).exists()):
                _write_shard(out / name, table)
                spent[name] = round(time.monotonic() - start, 3)
                write_json(out / "timing.json", spent)
                start = time.monotonic()
            artifact.finish(rows=len(pool), pool=pool.source, seconds=round(sum(spent.values()), 3))
    return read_features(out)


def _write_shard(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    with atomic_write(path) as f:
        pq.write_table(table, f, compression="zstd")


def _shards(pool: Pool, source: Any, config: dict, mesh: Any, show: bool, done: Any) -> Iterator[tuple[str, pa.Table]]:
    """Yield (file name, table) for every shard that is not done yet."""
    from edjax.lm.encode import Encoder
    from edjax.lm.mesh import place, using

    loaded = source() if callable(source) else source
    loaded = replace(loaded, model=place(loaded.model, mesh))
    layers = loaded.model.config.num_layers
    if not -layers - 1 <= config["layer"] <= layers:
        raise UsageError(f"layer {config['layer']} is outside the model's {-layers - 1}..{layers}")
    encoder = Encoder(loaded.tokenizer, config["template"], config["max_length"])
    prompts = [encoder.prompt(m) for m in pool.messages]
    order = by_length([len(p) for p in prompts])
    with progress("score", len(pool), "prompts", show=show) as advance:
        for i, rows in enumerate(chunks(order, config["shard_rows"])):
            name = f"shard-{i:05d}.parquet"
            if done(name):
                advance(len(rows))
            else:
                with using(mesh):
                    table = _score_rows(pool, prompts, rows, loaded, encoder, config, advance)
                yield name, table


def _score_rows(pool, prompts, rows, loaded, encoder, config, advance) -> pa.Table:
    import pyarrow as pa

    parts = []
    for batch, tokens, lengths in batches(prompts, rows, config["batch_size"]):
        got = _batch(
            loaded.model,
            tokens,
            lengths,
            layer=config["layer"],
            pooling=config["pooling"],
            max_new_tokens=config["max_new_tokens"],
            eos_ids=loaded.eos_ids,
        )
        parts.append({k: np.asarray(v)[: len(batch)] for k, v in got.items()})
        advance(len(batch))
    got = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    width = got["embedding"].shape[1]
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(got["embedding"].astype(np.float32).ravel()), width)
    columns: dict[str, Any] = {
        "row": pa.array(rows, pa.int64()),
        "id": pa.array([pool.ids[i] for i in rows], pa.string()),
        "embedding": embedding,
        "n_prompt_tokens": pa.array([len(prompts[i]) for i in rows], pa.int32()),
    }
    if config["max_new_tokens"]:
        columns["n_new_tokens"] = pa.array(got["n_new_tokens"], pa.int32())
        columns |= {name: pa.array(got[name], pa.float32()) for name in SCORES}
        texts = [encoder.decode(t[:n]) for t, n in zip(got["tokens"], got["n_new_tokens"], strict=True)]
        columns["generated"] = pa.array(texts, pa.string())
    return pa.table(columns)


@functools.cache
def _compiled():
    import jax
    import jax.numpy as jnp

    from edjax.kernels.uncertainty import sequence_scores
    from edjax.lm.decode import decode
    from edjax.lm.pooling import pool

    @functools.partial(jax.jit, static_argnames=("layer", "pooling", "max_new_tokens", "eos_ids"))
    def run(model, tokens, lengths, *, layer, pooling, max_new_tokens, eos_ids):
        hidden, wanted, cache = model.prefill(tokens, layer=layer)
        embedding = pool(wanted, lengths, pooling)
        if max_new_tokens == 0:
            return {"embedding": embedding}
        out = decode(model, hidden, cache, lengths, max_new_tokens=max_new_tokens, eos_ids=eos_ids)
        scores = sequence_scores(out.entropy, out.margin, out.nll, out.mask)
        n_new = out.mask.sum(1).astype(jnp.int32)
        return {"embedding": embedding, "tokens": out.tokens, "n_new_tokens": n_new} | scores._asdict()

    return run


def _batch(*args, **kwargs):
    return _compiled()(*args, **kwargs)
