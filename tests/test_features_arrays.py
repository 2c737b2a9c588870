"""Embeddings of one's own in .npy and .safetensors files, their ids, and columns that are joined by id."""

import json
from dataclasses import replace

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from edjax.data import stream
from edjax.data.arrays import open_array
from edjax.data.features import join_columns, read_features, survey
from edjax.data.ids import read_ids
from edjax.data.stream import Stream
from edjax.keep.errors import DataError, UsageError
from edjax.selection import order
from edjax.selection.choose import select
from edjax.selection.prepared import prepare

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
IDS = tuple(f"r{i}" for i in range(40))


def array_file(path, x=X, name="embeddings", **more):
    if path.suffix == ".npy":
        np.save(path, x)
    else:
        save_file({name: np.ascontiguousarray(x), **more}, path)
    return path


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, d) for n in ("x.npy", "x.safetensors") for d in (np.float16, np.float32, np.float64)]
    + [("x.safetensors", ml_dtypes.bfloat16)],
)
def test_an_array_is_read_as_float32(tmp_path, monkeypatch, name, dtype):
    x = X.astype(dtype)
    path = array_file(tmp_path / name, x)
    got = read_features(path, ids=IDS)
    assert got.ids == IDS and got.embeddings.dtype == np.float32 and not got.scores and not got.facts
    np.testing.assert_array_equal(got.embeddings, x.astype(np.float32))
    assert survey(path) == (40, 6, ())
    monkeypatch.setattr(stream, "_BATCH_BYTES", 4 * 6 * 7)
    left = read_features(path, ids=IDS, memory=0, scratch=tmp_path)
    assert isinstance(left.embeddings, Stream) and left.digest == got.digest
    np.testing.assert_array_equal(left.embeddings.read(), got.embeddings)
    np.testing.assert_allclose(prepare(left.embeddings)[:], prepare(got.embeddings), atol=1e-6)


def test_picks_from_disk_are_those_of_memory_with_weights_and_a_part_of_the_rows(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    path, n = array_file(tmp_path / "x.npy", rng.normal(size=(300, 6)).astype(np.float32)), 300
    pq.write_table(pa.table({"id": np.arange(n), "q": rng.random(n)}), tmp_path / "q.parquet")
    ids = tuple(str(i) for i in range(n))
    whole = join_columns(read_features(path, ids=ids), tmp_path / "q.parquet")
    left = join_columns(read_features(path, ids=ids, memory=0, scratch=tmp_path), tmp_path / "q.parquet")
    ours, theirs = (select(f, "random", 20, near_duplicates=0.9) for f in (left, whole))
    assert ours.ids == theirs.ids and len(ours.removed) == len(theirs.removed) > 3
    monkeypatch.setattr(order, "_SMALL", 0)
    given = {"labelled": ("3", "50"), "prefilter": "q", "prefilter_ratio": 10, "weight_by": "q"}
    ours, theirs = (select(f, "d_optimal", 20, **given) for f in (left, whole))
    assert ours.ids == theirs.ids
    monkeypatch.setattr(order, "_SMALL", 10**6)
    group = {"g": np.asarray(["a"] * 150 + ["b"] * 150, object)}
    left, whole = (replace(f, facts=f.facts | group) for f in (left, whole))
    assert select(left, "k_center", 20, group_by="g").ids == select(whole, "k_center", 20, group_by="g").ids


def test_the_tensor_that_is_taken(tmp_path):
    bias = {"bias": np.zeros(3, np.float32)}
    assert open_array(array_file(tmp_path / "a.safetensors", name="anything", **bias)).shape == (40, 6)
    two = {"other": np.zeros((2, 2), np.float32)}
    assert open_array(array_file(tmp_path / "b.safetensors", name="embedding", **two)).shape == (40, 6)
    with pytest.raises(DataError, match=r"one of that shape named embeddings; it holds: "):
        open_array(array_file(tmp_path / "c.safetensors", name="x", **two))
    with pytest.raises(DataError, match="needs one tensor"):
        open_array(array_file(tmp_path / "d.safetensors", np.zeros(3, np.float32)))
    with pytest.raises(DataError, match="holds I64; float16, bfloat16"):
        open_array(array_file(tmp_path / "e.safetensors", np.ones((2, 2), np.int64)))


@pytest.mark.parametrize(
    ("name", "kind"),
    [(n, k) for n in ("x.npy", "X.NPY", "x.npz", "X.NPZ", "packed.npz") for k in ("rows", "columns", "big endian")]
    + [("X.SAFETENSORS", "rows")],
)
def test_every_order_of_axes_and_bytes_under_every_spelling_of_the_name(tmp_path, monkeypatch, name, kind):
    """Fortran order is what scikit-learn's PCA returns; .npz what `numpy.savez(x)` writes."""
    x = {"rows": X, "columns": np.asfortranarray(X), "big endian": X.astype(">f8")}[kind]
    path = tmp_path / name
    with open(path, "wb") as f:
        if name.lower().endswith(".npy"):
            np.save(f, x)
        elif name.lower().endswith(".npz"):
            (np.savez_compressed if name.startswith("packed") else np.savez)(f, x)
    if name == "X.SAFETENSORS":
        save_file({"x": X}, path)
    got = read_features(path, ids=IDS)
    np.testing.assert_array_equal(got.embeddings, X)
    assert survey(path) == (40, 6, ())
    monkeypatch.setattr(stream, "_BATCH_BYTES", 4 * 6 * 7)
    left = read_features(path, ids=IDS, memory=0, scratch=tmp_path)
    assert isinstance(left.embeddings, Stream)
    np.testing.assert_array_equal(left.embeddings.read(), X)


def test_the_array_of_an_npz_that_is_taken(tmp_path):
    np.savez(tmp_path / "a.npz", embeddings=X, other=X[:2], ids=np.asarray(IDS))
    assert open_array(tmp_path / "a.npz").shape == (40, 6)
    np.savez(tmp_path / "b.npz", x=X, labels=np.zeros(40))
    assert open_array(tmp_path / "b.npz").shape == (40, 6)
    np.savez(tmp_path / "c.npz", train=X, test=X[:2])
    with pytest.raises(DataError, match=r"needs one array .*it holds: train \(40, 6\) float32, test \(2, 6\) float32"):
        open_array(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", ids=np.asarray([["a"], [{}]], object))
    with pytest.raises(DataError, match=r"d\.npz: ids holds object of shape \(2, 1\)"):
        open_array(tmp_path / "d.npz")
    np.savez(tmp_path / "e.npz")
    with pytest.raises(DataError, match="it holds: none"):
        open_array(tmp_path / "e.npz")
    whole = (tmp_path / "b.npz").read_bytes()
    for content in (b"", b"PK\x03\x04", whole[:-40], b"x" * 100):
        (tmp_path / "f.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"f\.npz cannot be read as an array of numbers"):
            open_array(tmp_path / "f.npz")
    at = whole.index(X.tobytes()) + 100
    (tmp_path / "g.npz").write_bytes(whole[:at] + b"\xff" * 8 + whole[at + 8 :])  # only reading it tells
    with pytest.raises(DataError, match=r"g\.npz cannot be read .*CRC"):
        read_features(tmp_path / "g.npz", ids=IDS)


def bad_npy(path, kind):
    if kind == "objects":
        np.save(path, np.asarray([["a"], [{}]], object), allow_pickle=True)
    elif kind == "one dimension":
        np.save(path, X[0])
    elif kind == "integers":
        np.save(path, np.ones((3, 3), int))
    elif kind == "complex":
        np.save(path, X.astype(complex))
    elif kind == "three dimensions":
        np.save(path, X[None])
    elif kind == "booleans":
        np.save(path, X > 0)
    elif kind == "longdouble":
        np.save(path, X.astype(np.longdouble))
    elif kind == "no columns":
        np.save(path, X[:, :0])
    elif kind == "zip":
        with open(path, "wb") as f:
            np.savez(f, X)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no rows":
        np.save(path, X[:0])
    elif kind == "text":
        path.write_text("1,2\n3,4\n")
    elif kind == "cut":
        np.save(path, X)
        path.write_bytes(path.read_bytes()[:-9])
    return path


@pytest.mark.parametrize(
    "kind",
    [
        *("objects", "one dimension", "three dimensions", "integers", "booleans", "complex", "longdouble"),
        "empty",
        "no columns",
        "no rows",
        "text",
        "cut",
        "zip",
    ],
)
def test_an_npy_that_does_not_fit_is_refused(tmp_path, kind):
    with pytest.raises(DataError, match=r"x\.npy"):
        read_features(bad_npy(tmp_path / "x.npy", kind), ids=IDS)


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"\xff" * 8 + b"{}", b"x" * 100])
def test_a_damaged_safetensors_is_refused(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.safetensors cannot be read as safetensors"):
        read_features(tmp_path / "x.safetensors", ids=IDS)


def test_rows_and_ids_must_be_as_many(tmp_path):
    path = array_file(tmp_path / "x.npy")
    with pytest.raises(UsageError, match=r"does not name its rows: give their ids with --ids FILE .* or the pool"):
        read_features(path)
    with pytest.raises(DataError, match="has 40 rows and there are 39 ids"):
        read_features(path, ids=IDS[1:])
    with pytest.raises(DataError, match="id 'r1' stands twice"):
        read_features(path, ids=("r1", *IDS[1:]))
    with pytest.raises(DataError, match=r"embeddings .*y\.npy do not exist"):
        read_features(tmp_path / "y.npy", ids=IDS)


def test_the_digest_is_of_rows_and_ids(tmp_path):
    a, b = array_file(tmp_path / "a.npy"), array_file(tmp_path / "b.npy", X + 1)
    digests = {read_features(a, ids=IDS).digest, read_features(b, ids=IDS).digest}
    assert len(digests | {read_features(a, ids=IDS[::-1]).digest}) == 3


def test_columns_of_other_names(tmp_path):
    embedding = pa.array(X.tolist(), pa.list_(pa.float32()))
    table = pa.table({"uid": IDS, "vector": embedding, "worry": X[:, 0].astype(float), "id": np.arange(40)})
    pq.write_table(table, tmp_path / "f.parquet")
    names = {"id_column": "uid", "embedding_column": "vector"}
    got = read_features(tmp_path / "f.parquet", **names)
    assert got.ids == IDS and list(got.scores) == ["worry"] and list(got.facts) == ["id"]
    assert survey(tmp_path / "f.parquet", **names) == (40, 6, ("worry",))
    left = read_features(tmp_path / "f.parquet", memory=0, **names)
    np.testing.assert_array_equal(left.embeddings.read(), X)
    assert read_features(tmp_path / "f.parquet", embedding_column="vector").ids == tuple(map(str, range(40)))
    with pytest.raises(DataError, match=r"no column \['embedding'\].*FILE.parquet:COLUMN and --id-column"):
        read_features(tmp_path / "f.parquet", id_column="uid")


# Ids


def ids_file(path, ids=IDS, column="id"):
    if path.suffix == ".txt":
        path.write_bytes("\n".join(ids).encode() + b"\n")
    elif path.suffix == ".npy":
        np.save(path, np.asarray(ids))
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({column: ids, "x": np.arange(len(ids))}), path)
    elif path.suffix == ".csv":
        path.write_text(f"{column},x\n" + "".join(f"{i},1\n" for i in ids))
    else:
        path.write_text("".join(json.dumps({column: i, "prompt": "p"}) + "\n" for i in ids))
    return path


@pytest.mark.parametrize("suffix", [".txt", ".npy", ".parquet", ".csv", ".jsonl"])
def test_ids_of_every_kind_of_file(tmp_path, suffix):
    assert read_ids(ids_file(tmp_path / f"ids{suffix}")) == IDS
    if suffix not in (".txt", ".npy"):
        other = ids_file(tmp_path / f"other{suffix}", column="uid")
        assert read_ids(other, "uid") == IDS
        with pytest.raises(DataError, match="no column 'id'"):
            read_ids(other)
    with pytest.raises(DataError, match="id 'r0' stands twice"):
        read_ids(ids_file(tmp_path / f"twice{suffix}", ("r0", "r1", "r0")))


def test_odd_ids(tmp_path):
    np.save(tmp_path / "n.npy", np.arange(3))
    assert read_ids(tmp_path / "n.npy") == ("0", "1", "2")
    (tmp_path / "c.txt").write_bytes("\ufeffa\r\nb b\r\nü".encode())
    assert read_ids(tmp_path / "c.txt") == ("a", "b b", "ü")
    for name, content, said in [
        ("e.txt", b"a\n\nb\n", r"e\.txt:2: an empty line"),
        ("l.txt", b"\xff\n", "not UTF-8"),
        ("b.jsonl", b'{"id":"a"}\n{', r"b\.jsonl:2: not valid JSON"),
        ("m.jsonl", b'{"id":"a"}\n{"id":null}\n', "row 2 has the id None"),
        ("x.bin", b"a", r"ids are read from \.txt"),
        ("p.parquet", b"PAR1", "cannot be read as Parquet"),
        ("o.npy", b"abc", "cannot be read as an array of ids"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=said):
            read_ids(tmp_path / name)
    np.save(tmp_path / "f.npy", X)
    with pytest.raises(DataError, match=r"holds float32 of shape \(40, 6\); ids are"):
        read_ids(tmp_path / "f.npy")
    np.save(tmp_path / "object.npy", np.asarray(["a", {}], object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read as an array of ids"):
        read_ids(tmp_path / "object.npy")
    with pytest.raises(DataError, match="do not exist"):
        read_ids(tmp_path / "none.txt")


# Columns joined by id


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_scores_are_joined_by_id(tmp_path, suffix):
    found, path = read_features(array_file(tmp_path / "x.npy"), ids=tuple(f"{i:03d}" for i in range(40))), tmp_path
    order = np.random.default_rng(2).permutation(40)
    names, values = [f"{i:03d}" for i in order] + ["999"], [float(i) for i in order] + [7.5]
    path = tmp_path / f"s{suffix}"
    if suffix == ".csv":
        path.write_text(
            "id,worry,level,task\n" + "".join(f"{n},{v},{int(v)},t\n" for n, v in zip(names, values, strict=True))
        )
    else:
        level = np.asarray(values, int)
        pq.write_table(pa.table({"id": names, "worry": values, "level": level, "task": ["t"] * 41}), path)
    got = join_columns(found, path)
    assert got.scores["worry"].tolist() == got.scores["level"].tolist() == list(range(40))
    assert got.scores["worry"].dtype == np.float32 and set(got.facts) == {"task"} and got.digest != found.digest
    assert select(got, "worry", 3).ids == ("039", "038", "037")
    with pytest.raises(DataError, match="have a column 'worry' already"):
        join_columns(got, path)
    with pytest.raises(DataError, match="no column 'uid' with ids"):
        join_columns(found, path, "uid")
    with pytest.raises(DataError, match=r"no row with id 'r0' \(40 such\)"):
        join_columns(read_features(array_file(tmp_path / "x.npy"), ids=IDS), path)
    with pytest.raises(DataError, match="do not exist"):
        join_columns(found, tmp_path / "none.csv")
