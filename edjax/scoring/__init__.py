"""One streaming pass of the base model over a pool: an embedding, six token uncertainties and two scores a prompt."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edjax.data.columns import as_lists
from edjax.data.features import SCORES, Features, from_table, read_features
from edjax.data.pool import Pool
from edjax.keep.errors import UsageError
from edjax.keep.memory import enough_memory
from edjax.keep.progress import progress
from edjax.keep.store import atomic_write, read_json, sha256_json, write_json, writing
from edjax.lm.bounds import facts_of
from edjax.lm.session import Session
from edjax.scoring.config import POOLINGS as POOLINGS
from edjax.scoring.config import ScoreConfig
from edjax.scoring.dry_run import Estimate, probe
from edjax.scoring.job import Asked, Job, Measure, prepare
from edjax.scoring.probes import PROBES, measured

if TYPE_CHECKING:
    import pyarrow as pa

    from edjax.lm.load import LoadedModel

LAYOUT = 3  # the way rows are laid out in shards: what was begun in another way is not gone on with

Log = Callable[[str], None]
LESS = "lower batch_size (score_batch_size of a recipe) or max_length, or take dtype bfloat16 or a mesh"


def _silent(text: str) -> None:
    pass


def score(
    pool: Pool,
    model: str | Session = "smollm2",
    *,
    out: str | Path | None = None,
    layer: int = -1,
    pooling: str = "mean",
    max_new_tokens: int = 16,
    template: str = "auto",
    max_length: int = 1024,
    max_prompt: int | None = None,
    max_response: int | None = None,
    batch_size: int = 32,
    shard_rows: int = 512,
    probes: Sequence[str] = (),
    checkpoints: str | Path | None = None,
    icl_prompts: str | Path | None = None,
    yes: bool = False,
    dtype: str = "float32",
    mesh: str = "",
    date: str | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
    loaded: LoadedModel | None = None,
    log: Log = _silent,
) -> Features:
    """Embed every prompt and measure how unsure the model is of its own greedy answer.

    The embedding is the chosen pooling of the hidden states of `layer` over the prompt's tokens, stored raw. The six
    uncertainties are those of METHODS section 1, from at most `max_new_tokens` greedily decoded tokens, end-of-text
    included; `energy` and `grad_norm` (`edjax.kernels.prompt_scores`) need no more than 1. 0 skips all of them. Rows
    run in order of length, so little is wasted on padding; padding and batch composition change no result beyond float
    rounding. Prompts of the very same tokens are computed once, and all get the result.

    Args:
      pool: the prompts. Responses are looked at by the probe response alone.
      model: a name as in `edjax.lm.load.locate`, or a `Session`, which then says dtype, mesh, template and bounds.
      out: directory of Parquet shards, resumable shard by shard; None keeps the features in memory only.
      layer: as `transformers` counts `hidden_states`: 0 the embeddings, -1 the last after the final norm.
      pooling: "mean", "last" token, or "weighted_mean" (weights 1..t, Muennighoff 2022).
      template, max_length, max_prompt, max_response: as in `edjax.lm.encode.Encoder`: of max_length tokens prompts
        leave a quarter to responses, unless one of the others says more.
      batch_size: rows a batch. shard_rows: distinct prompts a shard; their copies are in the same one.
      probes: what else is measured of a row, names of `edjax.scoring.probes.PROBES`: "response", for which every row is
        passed through the model once more, with its response; "trajectory", the same with each adapter of checkpoints;
        "icl_utility" (`edjax.scoring.icl_utility`), for which every row is, behind every other one.
      checkpoints: a directory of `finetune` with `keep_checkpoints`, or one of numbered PEFT adapters, as
        `edjax.lm.trajectory.adapters_along` reads it; for the probe trajectory.
      icl_prompts: a YAML file of words for "icl_utility", see `edjax.scoring.icl_prompts.Wording`; None: ours.
      yes: go on where a probe takes very much, as "icl_utility" does of more than 2,000 rows.
      dtype: float32 or bfloat16 weights and activations; scores are float32 either way.
      mesh: devices to share the rows and the model among, as in `edjax.lm.mesh.parse_mesh`; of one process.
      date: the day that a chat template prints where it asks for today's; None: that of `out`, else today.
      loaded: the model, if the caller has it already.
      log: is told how many prompts are copies, cut, or hold control tokens.

    Raises:
      UsageError: an unknown pooling or layer; `out` was made with other settings; a mesh that does not fit the
        devices, the model or `batch_size`; the probe trajectory without checkpoints, or these without it; a probe that
        takes very much, which it says, without `yes`.
      DataError: from the model; a prompt that cannot be encoded; checkpoints that are not all there, or cannot be read.
      EnvError: from the model; memory runs out.
    """
    from edjax.lm.adapter import bare_digest
    from edjax.lm.dates import day_of
    from edjax.lm.trajectory import adapters_along

    along = None if checkpoints is None else str(checkpoints)
    wording = str(icl_prompts or "")
    asked = ScoreConfig(layer, pooling, max_new_tokens, tuple(probes), along, wording, batch_size, shard_rows, yes)
    read = {"max_length": max_length, "max_prompt": max_prompt, "max_response": max_response}
    session = Session.of(model, loaded, dtype=dtype, mesh=mesh, template=template, **read)
    config = {
        "model": session.name,
        **_config(asked, session),
        "dtype": session.dtype,
        "layout": LAYOUT,
        **({} if session.quantize == "none" else {"quantize": session.quantize}),
    }
    day = day_of(session.directory, session.template, None if out is None or overwrite else Path(out))
    config |= day and {"date": date or day["date"]}
    adapters = [] if along is None else adapters_along(along)
    digests = {adapter.name: bare_digest(adapter) for adapter in adapters}
    facts: dict[str, Any] = {"checkpoints": digests} if digests else {}
    along_too = {"checkpoints": sha256_json(list(digests.values()))} if digests else {}
    begin = functools.partial(_begin, pool, session, config, adapters, yes, log, facts)
    if out is None:
        import pyarrow as pa

        with enough_memory("scoring", LESS):
            tables = [t for _, t in _shards(pool, begin(), show_progress, lambda _: False)]
        table = pa.concat_tables(tables).sort_by("row").drop_columns("row")
        return from_table(table, sha256_json({"pool": pool.digest, **config, **along_too}), "scored pool")
    out = Path(out)
    inputs = {"pool": pool.digest, "model": session.digest, **along_too}
    start, begun = time.monotonic(), None
    if overwrite:  # what is refused is refused before anything is deleted
        with enough_memory("scoring", LESS):
            begun = begin()
    with writing(out, kind="features", config=config, inputs=inputs, overwrite=overwrite) as artifact:
        if not artifact.complete:
            spent = read_json(out / "timing.json") if (out / "timing.json").exists() else {}
            with enough_memory("scoring", LESS):
                begun = begun or begin()
                for name, table in _shards(
                    pool, begun, show_progress, lambda name: _done(out / name, max_new_tokens > 0)
                ):
                    _write_shard(out / name, table)
                    spent[name] = round(time.monotonic() - start, 3)
                    write_json(out / "timing.json", spent)
                    start = time.monotonic()
            artifact.finish(
                rows=len(pool),
                **facts,
                pool=pool.named,
                reading=pool.reading.record(),
                seconds=round(sum(spent.values()), 3),
            )
    return read_features(out)


def estimate(
    pool: Pool,
    model: str | Session = "smollm2",
    *,
    loaded: LoadedModel | None = None,
    log: Log = _silent,
    **settings: Any,
) -> Estimate:
    """What `score` with the same settings would take in time and memory, from a probe of ten batches.

    Probes are not in it; `log` is told of each that takes very much, and what.

    Args:
      settings: dtype, mesh, template and bounds of a `Session` and what `ScoreConfig` holds, as in `score`.

    Raises: as `score`.
    """
    of_session = {f.name for f in dataclasses.fields(Session)} & settings.keys()
    session = Session.of(model, loaded, **{name: settings.pop(name) for name in of_session})
    along, wording = settings.get("checkpoints"), settings.get("icl_prompts")
    paths = {"checkpoints": None if along is None else str(along), "icl_prompts": str(wording or "")}
    asked = ScoreConfig(**{**settings, "probes": tuple(settings.get("probes", ())), **paths})
    config = _config(asked, session)
    start = time.perf_counter()
    with enough_memory("scoring", LESS):
        model_now = session.loaded
        load_s = time.perf_counter() - start
        job = prepare(pool, model_now, config, session.devices)
        for note in job.notes(pool.ids):
            log(note)
        for name in asked.probes:
            if takes := PROBES[name].dear(Asked(pool, job, session, config, (), log, {})):
                log(f"the probe {name} {takes}, or go on with --yes")
        return probe(job, len(pool), load_s, time.perf_counter() - start - load_s, log)


def _config(asked: ScoreConfig, session: Session) -> dict[str, Any]:
    """What is computed of which tokens, once it is sure that the batches divide over the devices."""
    from edjax.lm.mesh import check_rows

    check_rows(asked.batch_size, session.devices)
    bounds = {"max_length": session.max_length, **session.own_bounds}
    return {**asked.record(), "template": session.template, **bounds}


def _done(path: Path, decoded: bool) -> bool:
    """Whether a shard is there, with all scores: one that an earlier version began to write has fewer."""
    import pyarrow.parquet as pq

    return path.exists() and (not decoded or set(SCORES) <= set(pq.read_schema(path).names))


def _write_shard(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    with atomic_write(path) as f:
        pq.write_table(table, f, compression="zstd")


class _Begun(NamedTuple):
    """What is known before the first shard: what there is to compute, and what the probes measure of rows."""

    job: Job
    measures: dict[str, Measure]


def _begin(
    pool: Pool,
    session: Session,
    config: dict[str, Any],
    adapters: Sequence[Path],
    yes: bool,
    log: Log,
    facts: dict[str, Any],
) -> _Begun:
    """Load the model and encode the pool; what is refused of them is refused here. `facts` get what there is to say."""
    job = prepare(pool, session.loaded, config, session.devices)
    distinct = job.layout.distinct
    asked = Asked(pool, job, session, config, adapters, log, facts)
    for name in config.get("probes", ()):
        if not yes and (takes := PROBES[name].dear(asked)):
            raise UsageError(f"the probe {name} {takes}, or go on with --yes (yes=True in Python)")
        if said := PROBES[name].told(asked):
            log(said)
    measures = {name: of(asked) for name in config.get("probes", ()) if (of := PROBES[name].of)}
    facts |= {"distinct": distinct, **facts_of(job.rows, pool.ids)}
    for note in job.notes(pool.ids):
        log(note)
    if distinct < len(pool):
        log(f"{len(pool) - distinct} of {len(pool)} prompts are exact copies of others and not computed again")
    return _Begun(job, measures)


def _shards(pool: Pool, begun: _Begun, show: bool, done: Callable[[str], bool]) -> Iterator[tuple[str, pa.Table]]:
    """Yield (file name, table) for every shard that is not done yet."""
    job, measures = begun
    layout = job.layout
    names = [f"shard-{i:05d}.parquet" for i in range(len(layout.shards))]
    left = [i for i, name in enumerate(names) if not done(name)]
    with progress("score", len(pool), "prompts", show=show) as advance:
        advance(len(pool) - sum(len(layout.rows(i)[0]) for i in left))
        stream = job.forward.stream(layout, (batch for i in left for batch in layout.shards[i]), job.prompts)
        for i in left:
            parts = []
            for _ in layout.shards[i]:
                batch, got = next(stream)
                parts.append(got)
                advance(int(layout.starts[batch.stop] - layout.starts[batch.start]))
            table = _table(pool, job, i, {k: np.concatenate([p[k] for p in parts]) for k in parts[0]})
            for probe_name, measure in measures.items():
                for column, values in measured(probe_name, measure, table["row"].to_numpy()).items():
                    table = table.append_column(column, [as_lists(values)])
            yield names[i], table


def _table(pool: Pool, job: Job, shard: int, got: dict[str, np.ndarray]) -> pa.Table:
    """A shard's rows; copies of a prompt get the same values."""
    import pyarrow as pa

    rows, which = job.layout.rows(shard)
    columns: dict[str, Any] = {
        "row": pa.array(rows, pa.int64()),
        "id": pa.array([pool.ids[i] for i in rows], pa.string()),
        "embedding": as_lists(got["embedding"][which].astype(np.float32)),
        "n_prompt_tokens": pa.array([len(job.prompts[i]) for i in rows], pa.int32()),
    }
    if "tokens" in got:
        columns["n_new_tokens"] = pa.array(got["n_new_tokens"][which], pa.int32())
        columns |= {name: pa.array(got[name][which], pa.float32()) for name in SCORES}
        texts = [job.encoder.decode(t[:n]) for t, n in zip(got["tokens"], got["n_new_tokens"], strict=True)]
        columns["generated"] = pa.array(texts, pa.string()).take(pa.array(which))
    return pa.table(columns)
