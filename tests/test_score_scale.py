"""Scoring at pool scale: distinct prompts, batches that waste little, the dry run, and stops of every kind."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from lm_cases import STORIES, make_pool, story_pool

from edjax.data.features import SCORES
from edjax.keep.store import read_json
from edjax.lm.batching import common_widths
from edjax.scoring import estimate, score
from edjax.scoring.dry_run import clock, extrapolate
from edjax.scoring.layout import lay_out

# Layout


def test_a_layout_holds_every_row_once_and_copies_together():
    rng = np.random.default_rng(0)
    kinds = [list(map(int, rng.integers(0, 3, rng.integers(1, 60)))) for _ in range(50)]
    prompts = [kinds[i] for i in rng.integers(0, 50, 300)]
    layout = lay_out(prompts, 4, 10)
    assert layout.distinct == len({tuple(p) for p in prompts})
    held = [layout.rows(i) for i in range(len(layout.shards))]
    assert sorted(np.concatenate([rows for rows, _ in held]).tolist()) == list(range(300))
    seen = set()
    for shard, (rows, which) in zip(layout.shards, held, strict=True):
        firsts = np.concatenate([layout.firsts(b) for b in shard])
        assert len(firsts) <= 10 and all(b.stop - b.start <= 4 for b in shard)
        for row, i in zip(rows, which, strict=True):
            assert prompts[row] == prompts[firsts[i]] and firsts[i] <= row
        mine = {tuple(prompts[r]) for r in firsts}
        assert len(mine) == len(firsts) and not mine & seen
        seen |= mine
    for batch in layout.batches():
        assert max(len(prompts[i]) for i in layout.firsts(batch)) <= batch.width
    assert layout.lengths.tolist() == sorted(layout.lengths.tolist())


def test_a_prompt_is_not_its_beginning():
    """Token rows are told apart by their length too: 0 is a token, not padding."""
    assert lay_out([[5], [5, 0], [5], [0]], 2, 9).distinct == 3


@pytest.mark.parametrize("cost", [0, 3, 20, 150, 10_000])
def test_common_widths_are_the_best_there_are(cost):
    lengths = [1, 8, 9, 23, 23, 24, 41, 70, 71, 90]
    got = common_widths(lengths, cost)
    assert (got >= lengths).all() and not (got % 8).any()

    def total(sizes):
        chosen = [min((s for s in sizes if s >= n), default=None) for n in lengths]
        return np.inf if None in chosen else sum(chosen) + cost * len(set(chosen))

    every = sorted({-(-n // 8) * 8 for n in lengths})
    best = min(total(s) for k in range(1, len(every) + 1) for s in itertools.combinations(every, k))
    assert got.sum() + cost * len(set(got.tolist())) == best


# Copies and neighbours


@pytest.fixture(scope="module")
def scored(stories):
    def run(pool, out=None, **settings):
        settings = {"max_new_tokens": 4, "batch_size": 2, "shard_rows": 2, "show_progress": False} | settings
        return score(pool, stories.name, out=out, loaded=stories, **settings)

    return run


def test_copies_are_computed_once(scored, tmp_path, monkeypatch):
    """Seven copies of one prompt among others, more than a shard's rows: one place, one shard, the same bits."""
    texts = [STORIES[1], STORIES[2], STORIES[1], STORIES[4], *[STORIES[1]] * 5, STORIES[2]]
    pool, said, computed = make_pool([(t, None) for t in texts]), [], []
    from edjax.scoring.forward import Forward

    real = Forward.padded

    def padded(self, *args):
        tokens, lengths = real(self, *args)
        computed.extend(lengths[lengths > 0].tolist())
        return tokens, lengths

    monkeypatch.setattr(Forward, "padded", padded)
    got = scored(pool, tmp_path / "s", log=said.append)
    assert got.ids == pool.ids and len(computed) == 3
    for text in set(texts):
        rows = [i for i, t in enumerate(texts) if t == text]
        for values in (got.embeddings, *got.scores.values(), *got.facts.values()):
            assert all(np.array_equal(values[i], values[rows[0]]) for i in rows)
    assert said == ["7 of 10 prompts are exact copies of others and not computed again"]
    assert read_json(tmp_path / "s" / "manifest.json")["distinct"] == 3
    tables = [pq.read_table(p) for p in sorted((tmp_path / "s").glob("shard-*.parquet"))]
    assert sum(map(len, tables)) == 10 and len(tables) == 2
    assert sum(any(texts[i] == STORIES[1] for i in t["row"].to_pylist()) for t in tables) == 1


def test_neighbours_change_no_score_by_1e_4(scored):
    """40 prompts in batches of 4, of 16 from the other end, and beside rows ten times their length."""
    pool = story_pool(40)
    base = scored(pool, max_new_tokens=8, batch_size=4, shard_rows=100)
    turned = scored(pool.take(range(39, -1, -1)), max_new_tokens=8, batch_size=16, shard_rows=100)
    texts = [(pool.prompt_text(i), None) for i in range(40)]
    crowded = make_pool([*texts, *[(" ".join([t] * 10) + str(i), None) for i, (t, _) in enumerate(texts[:6])]])
    beside = scored(crowded, max_new_tokens=8, batch_size=46, shard_rows=100)
    for other, back in ((turned, slice(None, None, -1)), (beside, slice(0, 40))):
        assert np.abs(other.embeddings[back] - base.embeddings).max() <= 1e-4
        for name in SCORES:
            assert np.abs(other.scores[name][back] - base.scores[name]).max() <= 1e-4, name
        assert (other.facts["generated"][back] == base.facts["generated"]).all()


# The dry run


def test_extrapolation_is_exact_where_the_model_is():
    widths, rng = np.arange(16, 500, 8), np.random.default_rng(0)

    def seconds(w, steps):
        return 0.01 + 2e-3 * w + 3e-6 * w**2 + 0.05 * steps

    probed = widths[[0, 5, 9, 20, 33, 40, 48, 52, 57, 60]]
    steps = rng.integers(5, 17, 10)
    want = seconds(widths, np.full(len(widths), steps.mean())).sum()
    assert extrapolate(probed, steps, seconds(probed, steps), widths) == pytest.approx(want, rel=1e-3)
    same = np.full(3, 64)  # one width tells nothing of others; the same one it does
    assert extrapolate(same, np.zeros(3), np.array([1.0, 2.0, 3.0]), np.full(10, 64)) == pytest.approx(20)


def test_estimate_counts_what_scoring_does(stories, scored):
    pool = make_pool([(t, None) for t in (*STORIES, *STORIES[:3])])
    found = estimate(pool, stories.name, loaded=stories, max_new_tokens=4, batch_size=2)
    lengths = scored(pool).facts["n_prompt_tokens"][:6]
    assert (found.rows, found.distinct, found.batches, found.probed) == (9, 6, 3, 3)
    assert (found.shortest, found.longest) == (min(lengths), max(lengths))
    assert found.prompt_tokens == sum(lengths) <= found.padded_tokens
    assert found.mean == pytest.approx(np.mean(lengths))
    weights = sum(x.nbytes for x in jax.tree.leaves(stories.model))
    assert weights <= found.weight_bytes < 1.1 * weights + 4096
    assert found.peak_bytes > found.weight_bytes
    assert found.total_s == found.load_s + found.encode_s + found.compile_s + found.compute_s > 0


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.21 s"), (250, "4 min 10 s"), (7500, "2 h 5 min")])
def test_clock(seconds, text):
    assert clock(seconds) == text


# Commands: imported once, forked for each, so that many fit into a test run

ZYGOTE = """
import json, os, signal, sys
import flax.nnx, jax, optax, pyarrow.parquet, transformers
from transformers import AutoConfig, AutoTokenizer
import edjax.cli, edjax.scoring.forward, edjax.lm.checkpoint, edjax.lm.decode, edjax.lm.encode, edjax.lm.load

for line in sys.stdin:
    argv, log = json.loads(line)
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
        os.dup2(os.open(log + ".out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 1)
        edjax.cli.main(argv)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
SHARDS = 20


class Commands:
    """`edjax score` of 40 stories in 20 shards, each run a process of its own."""

    def __init__(self, folder, model):
        self.pool, self.log = folder / "pool.jsonl", folder / "log"
        pool = story_pool(40)
        self.pool.write_bytes(b"".join(pool.line(i) + b"\n" for i in range(40)))
        sizes = ["--max-new-tokens", "4", "--batch-size", "2", "--shard-rows", "2"]
        self.argv = ["score", str(self.pool), "--model", str(model), *sizes]
        cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "xla"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        env = os.environ | cache | {"EDJAX_CACHE": str(folder / "cache"), "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", ZYGOTE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def start(self, out, *more):
        self.process.stdin.write(json.dumps([[*self.argv, "--out", str(out), *more], str(self.log)]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait(self):
        """(exit code, lines on stderr)."""
        code = int(self.process.stdout.readline())
        err = self.log.read_text()
        assert "Traceback" not in err, err
        return code, [line for line in err.splitlines() if line.strip() and not line.startswith("edjax: note")]

    def stop(self, out, number, shards, delay):
        """Send a signal `delay` seconds after there are that many shards; (exit code, stderr, seconds it took)."""
        pid, deadline = self.start(out), time.monotonic() + 60
        while len(list(out.glob("shard-*.parquet"))) < shards:
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        time.sleep(delay)
        os.kill(pid, number)
        sent = time.monotonic()
        return *self.wait(), time.monotonic() - sent


@pytest.fixture(scope="module")
def edjax(shared, tmp_path_factory):
    commands = Commands(tmp_path_factory.mktemp("score"), shared / "models" / "stories260k")
    yield commands
    commands.process.stdin.close()
    commands.process.stdout.close()
    commands.process.wait()


@pytest.fixture(scope="module")
def straight(edjax, tmp_path_factory):
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("straight") / "s"
    edjax.start(out)
    assert edjax.wait()[0] == 0, edjax.log.read_text()
    assert len(shards(out)) == SHARDS
    return out


def shards(out):
    return {p.name: p.read_bytes() for p in sorted(out.glob("shard-*.parquet"))}


def written(out):
    return {p.name: p.stat().st_mtime_ns for p in out.glob("shard-*.parquet")}


def rest(edjax, straight, out, seed):
    """Run to the end: what was there stays, the bytes are those of a straight run."""
    before = written(out)
    edjax.start(out)
    assert edjax.wait()[0] == 0, edjax.log.read_text()
    assert shards(out) == shards(straight), f"seed {seed}"
    assert {k: v for k, v in written(out).items() if k in before} == before
    assert not list(out.glob("*.tmp-*"))


def test_stopped_again_and_again(edjax, straight, tmp_path):
    """RELIABILITY R1, R4: Ctrl-C, SIGTERM, then SIGKILL three times in one run; each goes on where the last was."""
    out, seed = tmp_path / "s", time.time_ns()
    rng = random.Random(seed)
    ends = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated"), signal.SIGKILL: (-9, None)}
    for i, number in enumerate((signal.SIGINT, signal.SIGTERM, *[signal.SIGKILL] * 3)):
        before = written(out)
        assert len(before) < SHARDS, f"seed {seed}: too fast to be stopped"
        code, err, seconds = edjax.stop(out, number, min(3 * i + 1, SHARDS - 1), rng.uniform(0, 0.01))
        wanted, word = ends[number]
        assert code == wanted, f"seed {seed}: {err}"
        assert seconds < 10
        assert err == ([f"edjax: error: {word}; the same command goes on from here"] if word else [])
        assert not (out / "manifest.json").exists()
        assert {k: v for k, v in written(out).items() if k in before} == before, f"seed {seed}"
    rest(edjax, straight, out, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_killed_20_times(edjax, straight, tmp_path, seed):
    """R1: SIGKILL at a random time, before the first shard too; all but the shard in work is kept."""
    rng, out = random.Random(seed), tmp_path / "s"
    code, _, _ = edjax.stop(out, signal.SIGKILL, rng.randint(0, SHARDS - 3), rng.uniform(0, 0.02))
    assert code == -signal.SIGKILL
    rest(edjax, straight, out, seed)


@pytest.mark.long
def test_three_processes_give_the_same_bytes(edjax, straight, tmp_path):
    """N1."""
    for name in ("a", "b"):
        rest(edjax, straight, tmp_path / name, name)


def test_a_dry_run_writes_nothing(edjax, straight, tmp_path):
    before = written(straight)
    edjax.start(straight, "--dry-run", "--json")
    code, _ = edjax.wait()
    assert code == 0, edjax.log.read_text()
    found = json.loads(edjax.log.with_name("log.out").read_text())
    assert (found["rows"], found["distinct"], found["batches"]) == (40, 40, 20)
    assert found["total_s"] > 0 and found["peak_bytes"] > found["weight_bytes"] > 500_000
    assert written(straight) == before
    edjax.start(tmp_path / "s", "--dry-run")
    assert edjax.wait()[0] == 0
    said = edjax.log.with_name("log.out").read_text()
    assert "40 prompts, 40 distinct" in said and f"nothing was written to {tmp_path / 's'}" in said
    assert not (tmp_path / "s").exists()
