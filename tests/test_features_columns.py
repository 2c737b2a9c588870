"""Columns with more than a number in a row: in files of every kind, in shards that are resumed, and in methods."""

import json
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lm_cases import make_pool

import edjax
from edjax.data.columns import as_lists, unfit
from edjax.data.features import Features, join_columns, read_features, survey
from edjax.data.stream import Stream
from edjax.keep.errors import DataError
from edjax.keep.store import atomic_write, writing
from edjax.kernels import Ground, Method, Sorted, from_gains, method
from edjax.scoring.probes import PROBES, Probe
from edjax.selection.choose import Chooser, usable
from edjax.selection.options import Options
from edjax.selection.prepared import take
from edjax.selection.strategies import STRATEGIES

N = 30
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 6)).astype(np.float32)
IDS = tuple(f"r{i}" for i in range(N))
LOSSES = RNG.random((N, 4)).astype(np.float32)
TOKENS = RNG.normal(size=(N, 3, 2)).astype(np.float32)
ARRAYS = {"trajectory": LOSSES, "tokens": TOKENS}


def parquet(path, rows=slice(None), **more):
    columns = {name: as_lists(v[rows]) for name, v in {"embedding": X, **ARRAYS}.items()}
    pq.write_table(pa.table({"id": IDS[rows], **columns, **more}), path)
    return path


@method
class Forgotten(Sorted):
    name = "forgotten"
    summary = "largest rise of the loss"
    paper = "none"
    needs = ("trajectory",)
    dims: ClassVar = {"trajectory": 2}

    def order_by(self, ground):
        return jnp.diff(jnp.asarray(ground.columns["trajectory"]), axis=1).max(axis=1)


@method
class Covered(Method):
    """Feature coverage of token states, times 1 plus the row's last loss: arrays of three and of two dimensions."""

    name = "covered"
    summary = "token states that few picks hold"
    paper = "none"
    needs = ("tokens",)
    takes = ("trajectory",)
    dims: ClassVar = {"tokens": 3, "trajectory": 2}

    def objective(self, ground, *, block, precision, shards):
        x = jnp.abs(jnp.asarray(ground.columns["tokens"])).sum(axis=1)
        loss = ground.columns.get("trajectory")
        x = x if loss is None else x * (1 + loss[:, -1:])
        return from_gains(
            x,
            jnp.zeros(2),
            lambda held, rows: jnp.sum(jnp.sqrt(held + rows) - jnp.sqrt(held), 1),
            jnp.add,
            given=ground.given,
        )


@pytest.fixture(autouse=True)
def methods(monkeypatch):
    for made in (Forgotten(), Covered()):
        monkeypatch.setitem(STRATEGIES, made.name, made)


def covered(x, budget, given=(), free=None):
    held, taken = x[list(given)].sum(0), []
    for _ in range(budget):
        gains = (np.sqrt(held + x) - np.sqrt(held)).sum(1)
        gains[[*taken, *given]] = -np.inf
        gains = gains if free is None else np.where(free, gains, -np.inf)
        taken.append(int(np.argmax(gains)))
        held = held + x[taken[-1]]
    return taken


WEIGHED = np.abs(TOKENS).sum(1) * (1 + LOSSES[:, -1:])
RISE = np.diff(LOSSES, axis=1).max(axis=1)


@pytest.mark.parametrize("memory", [None, 0])
def test_lists_in_parquet_are_arrays(tmp_path, memory):
    path = parquet(tmp_path / "f.parquet", worry=RNG.random(N), votes=range(N))
    got = read_features(path, memory=memory, scratch=tmp_path)
    assert isinstance(got.embeddings, Stream) == (memory == 0)
    assert list(got.scores) == ["worry"] and list(got.facts) == ["votes"] and list(got.arrays) == list(ARRAYS)
    assert set(got.columns) == {"worry", *ARRAYS}
    for name, want in ARRAYS.items():
        assert got.arrays[name].dtype == np.float32
        np.testing.assert_array_equal(got.arrays[name], want)
    some = take(got, np.array([7, 2, 19]))
    np.testing.assert_array_equal(some.arrays["tokens"], TOKENS[[7, 2, 19]])
    assert survey(path).scores == ("worry",), "an array is no score"


@pytest.mark.parametrize("kind", [pa.float64(), pa.float16(), pa.int32(), pa.uint8()])
@pytest.mark.parametrize("form", [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 4)])
def test_lists_of_every_kind(tmp_path, kind, form):
    values = np.arange(4 * N).reshape(N, 4)
    lists = values.astype(np.float16) if kind == pa.float16() else values
    column = pa.array(list(lists), form(kind))
    pq.write_table(
        pa.table({"id": IDS, "embedding": as_lists(X), "a": column}), tmp_path / "f.parquet", row_group_size=7
    )
    np.testing.assert_array_equal(read_features(tmp_path / "f.parquet").arrays["a"], values)


def test_a_number_that_is_missing_is_nan_and_the_row_no_candidate(tmp_path):
    rows = LOSSES.tolist()
    rows[5][2] = None
    pq.write_table(pa.table({"id": IDS, "embedding": as_lists(X), "trajectory": rows}), tmp_path / "f.parquet")
    got = read_features(tmp_path / "f.parquet")
    assert np.argwhere(np.isnan(got.arrays["trajectory"])).tolist() == [[5, 2]]
    with pytest.raises(DataError, match=r"1 row has NaN or infinite features \(r5\)"):
        edjax.select(got, "forgotten", 4)
    assert len(edjax.select(got, "forgotten", N - 1, drop_invalid=True)) == N - 1
    assert len(edjax.select(got, "random", N)) == N, "who does not read it does not mind"


def test_shards_come_back_in_the_pool_s_order(tmp_path):
    shuffle = np.random.default_rng(3).permutation(N)
    with writing(tmp_path / "f", kind="features", config={}, inputs={}) as artifact:
        for i, rows in enumerate((shuffle[:20], shuffle[20:])):
            columns = {name: as_lists(v[rows]) for name, v in {"embedding": X, **ARRAYS}.items()}
            with atomic_write(tmp_path / "f" / f"shard-{i:05d}.parquet") as f:
                pq.write_table(pa.table({"row": rows, "id": [IDS[j] for j in rows], **columns}), f)
        artifact.finish(pool="pool.jsonl")
    got = read_features(tmp_path / "f")
    assert got.ids == IDS
    for name, want in {"embedding": X, **ARRAYS}.items():
        np.testing.assert_array_equal(got.embeddings if name == "embedding" else got.arrays[name], want)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read_with_every_array_of_its_rows(tmp_path, save):
    path = tmp_path / "f.npz"
    more = {"worry": RISE.astype(float), "task": np.asarray(["a", "b"] * 15), "n": np.arange(N), "mean": X.mean(0)}
    save(path, embeddings=X, trajectory=LOSSES.astype(">f8"), tokens=np.asfortranarray(TOKENS), **more)
    got = read_features(path, ids=IDS)
    assert list(got.scores) == ["worry"] and list(got.facts) == ["task", "n"] and list(got.arrays) == list(ARRAYS)
    assert survey(path) == (N, 6, ("worry",))
    np.testing.assert_array_equal(got.arrays["tokens"], TOKENS)
    np.testing.assert_array_equal(got.arrays["trajectory"], LOSSES)
    assert edjax.select(got, "forgotten", 5).ids == edjax.select(got, "worry", 5).ids
    assert len(edjax.select(got, "covered", 4, group_by="task", quotas="balanced")) == 4


def test_arrays_are_joined_by_id(tmp_path):
    plain = Features(IDS, X, {}, {}, "d")
    back = np.arange(N)[::-1]
    table = pa.table({"id": [IDS[i] for i in back], "trajectory": as_lists(LOSSES[back])})
    pq.write_table(table, tmp_path / "s.parquet")
    got = join_columns(plain, tmp_path / "s.parquet")
    np.testing.assert_array_equal(got.arrays["trajectory"], LOSSES)
    with pytest.raises(DataError, match="the features have a column 'trajectory' already"):
        join_columns(got, tmp_path / "s.parquet")


# Methods


def test_a_method_reads_what_it_needs_and_takes():
    whole, part = (Features(IDS, X, {}, {}, "d", held) for held in (ARRAYS, {"tokens": TOKENS}))
    assert edjax.select(whole, "covered", 6).indices.tolist() == covered(WEIGHED, 6)
    assert edjax.select(part, "covered", 6).indices.tolist() == covered(np.abs(TOKENS).sum(1), 6)
    assert edjax.select(whole, "forgotten", 6).indices.tolist() == np.argsort(-RISE, kind="stable")[:6].tolist()
    second = edjax.select(whole, "covered", 4, labelled=("r3", "r8"), near_duplicates=0.999)
    assert second.indices.tolist() == covered(WEIGHED, 4, given=(3, 8))


def test_the_command_chooses_by_it(tmp_path, edjax_, fails):
    path = parquet(tmp_path / "f.parquet")
    argv = ("select", path, "--budget", 5, "--strategy")
    assert edjax_(*argv, "forgotten,covered,random", "--out", tmp_path / "o")[0] == 0
    lines = (tmp_path / "o" / "covered-5" / "selection.csv").read_text().splitlines()
    assert [int(line.split(",")[2]) for line in lines[1:]] == covered(WEIGHED, 5)
    assert lines[0] == '"order","id","row","gain"', "an array is no column of a selection"
    np.savez(tmp_path / "f.npz", embeddings=X, trajectory=LOSSES)
    (tmp_path / "ids.txt").write_text("\n".join(IDS))
    more = ("--ids", tmp_path / "ids.txt", "--out", tmp_path / "n")
    assert edjax_("select", "--embeddings", tmp_path / "f.npz", "--budget", 5, "--strategy", "forgotten", *more)[0] == 0
    said = "the column 'trajectory' holds 4 numbers a row, shape (30, 4); one number a row is needed here"
    for options in (["trajectory"], ["trajectory,random"], ["random", "--weight-by", "trajectory"]):
        assert said in fails(3, *argv, *options, "--out", tmp_path / "w")
    assert said in fails(3, *argv, "random", "--group-by", "trajectory", "--out", tmp_path / "w")
    spent = ("--budget-tokens", 50, "--cost-by", "trajectory", "--out", tmp_path / "w")
    assert said in fails(3, *argv, "random", *spent)
    assert "covered of 5 rows from 30: reads tokens" in edjax_(*argv, "covered", "--dry-run")[1]
    needs = {line.split()[0]: line for line in edjax_("strategies")[1].splitlines()}
    assert "needs trajectory" in needs["forgotten"] and "needs decoded tokens" in needs["mean_nll"]
    assert all("needs embeddings, decoded tokens  " in needs[name] for name in ("gist", "aloe"))
    assert "needs response_nll, n_response_tokens (--probe response), prompt_id  of each" in needs["grape"]
    assert len({needs[name].index(said) for name, said in (("grape", "of each"), ("random", "drawn by"))}) == 1
    assert json.loads(edjax_("strategies", "--json")[1])["covered"]["needs"] == "tokens"


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({}, r"the features hold no column 'trajectory' \(found: none\); .*join it with --scores FILE"),
        (
            {"arrays": {"trajectory": TOKENS}},
            r"holds 3 x 2 numbers a row, shape \(30, 3, 2\); a list of numbers a row",
        ),
        ({"scores": {"trajectory": RISE}}, r"holds one number a row, shape \(30,\); a list of numbers a row"),
    ],
)
def test_a_column_of_other_dimensions_is_refused(held, said):
    found = Features(IDS, X, held.get("scores", {}), {}, "d", held.get("arrays", {}))
    for choose in (
        lambda: edjax.select(found, "forgotten", 3),
        lambda: usable(found, [("random", Options()), ("forgotten", Options())]),
        lambda: Chooser(found, Options(), np.ones(N, bool)).left_out("random") or edjax.select(found, "forgotten", 1),
    ):
        with pytest.raises(DataError, match=said):
            choose()
    if held:
        whole = Features(IDS, X, found.scores, {}, "d", {**found.arrays, "tokens": TOKENS})
        with pytest.raises(DataError, match=said):
            edjax.select(whole, "covered", 3)


def test_what_kernels_say():
    with pytest.raises(ValueError, match=r"trajectory must have shape \(30, \*\), got \(30,\)"):
        edjax.kernels.select(Forgotten(), Ground({"trajectory": RISE}), 3)
    with pytest.raises(ValueError, match=r"trajectory must have shape \(30, \*\), got \(30, 3, 2\)"):
        edjax.kernels.select(Covered(), Ground({"tokens": TOKENS, "trajectory": TOKENS}), 3)
    with pytest.raises(ValueError, match=r"trajectory must have shape \(30, \*\), got \(30,\)"):
        plus = edjax.kernels.Plus((Covered(), edjax.kernels.Scaled(Forgotten(), by="worry")))
        edjax.kernels.select(plus, Ground({"tokens": TOKENS, "trajectory": RISE, "worry": RISE}), 3)


UNEVEN = {
    "a null": ([[1.0, 2.0], None, [3.0, 4.0], None], "is null in row 'r1'"),
    "other lengths": (
        [[1.0, 2.0], [1.0, 2.0], [3.0], [4.0]],
        r"has shape \(2,\) in the first row and \(1,\) in row 'r2'",
    ),
    "nested, uneven inside": (
        [[[1.0], [2.0]]] * 3 + [[[1.0], [2.0, 3.0]]],
        "holds lists of unequal length.*in row 'r3'",
    ),
    "nested, other shapes": (
        [[[1.0], [2.0]]] * 3 + [[[1.0]]],
        r"has shape \(2, 1\) in the first row and \(1, 1\) in row 'r3'",
    ),
    "nested, a null inside": (
        [[[1.0], [2.0]]] * 3 + [[[1.0], None]],
        "holds lists of unequal length, or a null, in row 'r3'",
    ),
    "empty": (pa.array([[1.0]] + [[]] * 3, pa.list_(pa.float32())), "holds an empty list in row 'r1'"),
    "text": ([["a", "b"]] * 4, "holds lists, and not of numbers"),
    "fixed, a null": (pa.array([[1.0, 2.0], [1.0, 2.0], None, None], pa.list_(pa.float32(), 2)), "is null in row 'r2'"),
}


@pytest.mark.parametrize("case", UNEVEN)
def test_lists_that_are_no_array_are_named_where_they_are_asked_for(tmp_path, case):
    values, said = UNEVEN[case]
    table = pa.table({"id": IDS[:4], "embedding": as_lists(X[:4]), "trajectory": values, "n": [1, 2, 3, 4]})
    pq.write_table(table, tmp_path / "f.parquet")
    got = read_features(tmp_path / "f.parquet")
    assert not got.arrays and list(got.facts) == ["trajectory", "n"] and len(edjax.select(got, "k_center", 2)) == 2
    for strategy in ("forgotten", "trajectory"):
        with pytest.raises(DataError, match=f"the column 'trajectory' {said}; lists of numbers, of one shape"):
            edjax.select(got, strategy, 2)
    assert unfit(got, "n", 2) and unfit(got, "nowhere") is None


# Probes


SETTINGS = {"max_new_tokens": 0, "show_progress": False, "batch_size": 2, "shard_rows": 2, "probes": ["states"]}


def states(asked):
    def measure(rows):
        lengths = np.asarray([len(asked.job.prompts[i]) for i in rows], np.float32)
        return {"states": lengths[:, None, None] + TOKENS[rows], "ends": np.stack([rows, rows + 1], 1), "long": lengths}

    return measure


@pytest.fixture
def session(stories):
    return edjax.Session(str(stories.directory), template="plain", max_length=64)


def test_a_probe_leaves_columns_of_any_shape_and_goes_on_where_it_stopped(session, tmp_path, monkeypatch):
    monkeypatch.setitem(PROBES, "states", Probe("states", {"states": 3, "ends": 2, "long": 1}, states))
    pool = make_pool(
        [(prompt, None, {}) for prompt in ("Tim had a", "Lily went to the", "Tim had a", "One day", "The")]
    )
    there = edjax.score(pool, session, **SETTINGS)
    whole = edjax.score(pool, session, out=tmp_path / "f", **SETTINGS)
    shards = sorted((tmp_path / "f").glob("shard-*.parquet"))
    assert len(shards) == 2
    bytes_then = [shard.read_bytes() for shard in shards]
    shards[-1].unlink()
    (tmp_path / "f" / "manifest.json").unlink()
    again = edjax.score(pool, session, out=tmp_path / "f", **SETTINGS)
    assert [shard.read_bytes() for shard in shards] == bytes_then and again.digest == whole.digest
    for got in (there, whole, again):
        lengths = got.facts["n_prompt_tokens"]
        np.testing.assert_array_equal(got.arrays["states"], lengths[:, None, None].astype(np.float32) + TOKENS[:5])
        np.testing.assert_array_equal(got.arrays["ends"], np.stack([np.arange(5), np.arange(1, 6)], 1))
        np.testing.assert_array_equal(got.scores["long"], lengths)


def test_a_probe_is_held_to_what_it_promises(session, monkeypatch):
    pool = make_pool([("a", None, {}), ("b", None, {})])
    for promised in ({"states": 2, "ends": 2, "long": 1}, {"states": 3}):
        monkeypatch.setitem(PROBES, "states", Probe("states", promised, states))
        with pytest.raises(ValueError, match="the probe states promises columns of dimensions"):
            edjax.score(pool, session, **SETTINGS)


def test_shards_are_the_bytes_they_were(tmp_path):
    """Columns of one dimension and the embedding lie in a shard as they did before there were others."""
    before = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 6)
    for name, embedding, counts in (
        ("a", before, [np.arange(N, dtype=np.int32)]),
        ("b", as_lists(X), [as_lists(np.arange(N, dtype=np.int32))]),
    ):
        table = pa.table({"embedding": embedding}).append_column("n", counts)
        pq.write_table(table, tmp_path / name, compression="zstd")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
