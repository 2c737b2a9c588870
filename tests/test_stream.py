"""Pools that stay on disk: the picks of the road through memory, in bounded memory, with nothing left behind."""

import errno
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edjax.data import stream
from edjax.data.features import read_features, survey
from edjax.data.stream import Spill, Stream
from edjax.keep.errors import DataError, EnvError, UsageError
from edjax.keep.store import atomic_write, writing
from edjax.selection.choose import select
from edjax.selection.prepared import prepare

N, D = 700, 12


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    monkeypatch.setattr(stream, "_BATCH_BYTES", 4 * D * 64)
    monkeypatch.setattr(stream, "_SLICE_BYTES", 4 * D * 90)


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    centres = 2 * rng.normal(size=(8, D)) + 5
    return (centres[rng.integers(0, 8, N)] + rng.uniform(0.3, 1.5, (N, 1)) * rng.normal(size=(N, D))).astype(np.float32)


def lists(x, kind):
    flat = pa.array(x.ravel())
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(flat, x.shape[1])
    return pa.ListArray.from_arrays(pa.array(np.arange(0, x.size + 1, x.shape[1]), pa.int32()), flat)


def table(x, kind="list", **more):
    return pa.table({"id": [f"r{i}" for i in range(len(x))], "embedding": lists(x, kind)} | more)


def on_disk(path, x, kind):
    """A plain file in groups of 100 rows; or shards in another order than the pool's, as `edjax score` leaves them."""
    if kind != "shards":
        pq.write_table(table(x, kind), path, row_group_size=100)
        return path
    rows = np.random.default_rng(1).permutation(len(x))
    shuffled = table(x, "fixed", row=np.arange(len(x)), worry=x[:, 0]).take(rows)
    with writing(path, kind="features", config={}, inputs={}) as artifact:
        for i in range(0, len(x), 150):
            with atomic_write(path / f"shard-{i:05d}.parquet") as f:
                pq.write_table(shuffled.slice(i, 150), f, compression="zstd")
        artifact.finish(pool="pool.jsonl")
    return path


KINDS = pytest.mark.parametrize("kind", ["list", "fixed", "shards"])


@KINDS
def test_a_stream_holds_what_reading_gives(tmp_path, x, kind):
    path = on_disk(tmp_path / "f", x, kind)
    whole, left = read_features(path), read_features(path, memory=1000, scratch=tmp_path)
    assert isinstance(whole.embeddings, np.ndarray) and isinstance(left.embeddings, Stream)
    assert isinstance(read_features(path, memory=x.nbytes).embeddings, np.ndarray)
    assert left.embeddings.shape == (N, D) and left.embeddings.nbytes == x.nbytes
    assert (whole.ids, whole.digest) == (left.ids, left.digest)
    np.testing.assert_array_equal(whole.embeddings, x)
    np.testing.assert_array_equal(left.embeddings.read(), x)
    assert survey(path) == (N, D, ("worry",) if kind == "shards" else ())
    spill = left.embeddings.spill()
    for key in (slice(3, 650), slice(690, 800), slice(700, 800), np.array([5, 600, 5, 0])):
        np.testing.assert_array_equal(spill[key], x[key])
    rows = np.array([650, 3, 17])
    np.testing.assert_array_equal(left.embeddings.take(rows).read(), x[rows])
    np.testing.assert_array_equal(left.embeddings.take(rows).take(np.array([2])).spill()[:], x[[17]])


@KINDS
@pytest.mark.parametrize("normalise", ["l2", "whiten", "centre", "none"])
@pytest.mark.parametrize("strategy", ["k_center", "d_optimal"])
def test_streamed_picks_are_those_of_memory(tmp_path, x, kind, normalise, strategy):
    path = on_disk(tmp_path / "f", x, kind)
    options = {"strategy": strategy, "budget": 60, "normalise": normalise}
    whole = select(read_features(path), **options)
    left = select(read_features(path, memory=0, scratch=tmp_path), **options)
    assert left.ids == whole.ids
    np.testing.assert_allclose(left.gains, whole.gains, rtol=1e-3)
    assert {p.name for p in tmp_path.iterdir()} == {"f"}


@pytest.mark.parametrize("normalise", ["l2", "whiten", "centre", "none"])
def test_prepared_rows_are_the_same_rows(tmp_path, x, normalise):
    x[:3] = x.mean(0)
    found = read_features(on_disk(tmp_path / "f", x, "shards"), memory=0, scratch=tmp_path)
    np.testing.assert_allclose(prepare(found.embeddings, normalise)[:], prepare(x, normalise), atol=1e-6)


@pytest.mark.parametrize("strategy", ["k_center", "d_optimal", "random", "worry"])
def test_rows_that_are_not_finite(tmp_path, x, strategy):
    x[4], x[300, 2] = np.nan, np.inf
    path = on_disk(tmp_path / "f", x, "shards")
    whole, left = read_features(path), read_features(path, memory=0, scratch=tmp_path)
    with pytest.raises(DataError, match=r"2 rows have NaN or infinite features \(r4, r300\)"):
        select(left, strategy, 5)
    options = {"budget": 50, "drop_invalid": True}
    ours, theirs = select(left, strategy, **options), select(whole, strategy, **options)
    assert ours.ids == theirs.ids and ours.warning == theirs.warning


def test_what_needs_memory_says_so(tmp_path, x):
    found = read_features(on_disk(tmp_path / "f", x, "list"), memory=0, scratch=tmp_path)
    with pytest.raises(UsageError, match="facility_location needs the embeddings in memory; read the features"):
        select(found, "facility_location", 3)
    assert len(select(found, "k_center", 0)) == 0


def test_damage_met_on_the_way_names_the_file(tmp_path, x):
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    pq.write_table(table(x), good)
    for column, said in [
        ([[1.0] * D] * 99 + [[1.0] * 3], r"embeddings have lengths \[3, 12\]"),
        ([[1.0] * D] * 99 + [None], "1 rows have no embedding"),
    ]:
        ids = [f"s{i}" for i in range(100)]
        pq.write_table(pa.table({"id": ids, "embedding": pa.array(column, pa.list_(pa.float32()))}), bad)
        found = Stream((good, bad), (N + 100, D), np.arange(N + 100), tmp_path)
        with pytest.raises(DataError, match=rf"bad\.parquet: {said}"):
            found.read()
    pq.write_table(table(x, worry=np.arange(N)), bad, compression="none", use_dictionary=False)
    content = bytearray(bad.read_bytes())
    middle = content.find(x.tobytes()[:64])
    content[middle - 40 : middle] = b"\xff" * 40
    bad.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"bad\.parquet"):
        Stream((bad,), (N, D), np.arange(N), tmp_path).read()


def test_a_full_disk_is_known_before_the_first_row(tmp_path, x, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    found = read_features(on_disk(tmp_path / "f", x, "list"), memory=0, scratch=tmp_path / "not" / "there")
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(EnvError, match=f"cannot write {tmp_path}/scratch: the disk is full"):
        select(found, "k_center", 3)


def test_a_spill_is_gone_with_its_owner(tmp_path):
    spill = Spill((1000, 8), tmp_path)
    spill[:] = np.ones((1000, 8), np.float32)
    assert list(tmp_path.iterdir()) == [] and len(list(spill.slices())) > 1


MEMORY = """
    import sys
    import numpy as np, pyarrow as pa, pyarrow.parquet as pq
    from pathlib import Path
    from edjax import kernels
    from edjax.data.features import read_features
    from edjax.selection.choose import select

    def memory(key):
        return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

    path, n, d = Path(sys.argv[1]), 150_000, 512
    batch = pa.FixedSizeListArray.from_arrays(pa.array(np.random.default_rng(0).random(n // 50 * d, np.float32)), d)
    schema = pa.schema({"id": pa.int64(), "embedding": batch.type})
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as f:
        for i in range(50):
            ids = pa.array(np.arange(i * n // 50, (i + 1) * n // 50))
            f.write_batch(pa.record_batch([ids, batch], schema=schema))
    kernels.k_center_streamed(np.random.rand(5000, d).astype("f"), 5).indices.block_until_ready()
    before = memory("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")
    found = read_features(path, memory=0, scratch=path.parent)
    assert len(select(found, "k_center", 5)) == 5
    print(memory("VmHWM") - before, found.embeddings.nbytes)
"""


def test_memory_stays_below_the_pool(tmp_path):
    code = textwrap.dedent(MEMORY)
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "f.parquet"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    taken, pool = map(int, done.stdout.split())
    assert taken < 0.75 * pool, f"{taken / 1e6:.0f} MB for a pool of {pool / 1e6:.0f} MB"
