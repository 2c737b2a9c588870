"""Ids as other tools write them: bytes, floats, categories; in features, scores, files of ids and labelled rows."""

import doctest
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edjax.data import ids as module
from edjax.data.features import join_columns, read_features
from edjax.data.ids import read_ids
from edjax.keep.errors import DataError
from edjax.selection.choose import select
from edjax.selection.labelled import read_labelled

N = 6
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
NUMBERS, NAMES = tuple(map(str, range(N))), tuple(f"p{i}" for i in range(N))
LONG = tuple(str((2**53 + i) * 10**9 + 1) for i in range(N))
SPELT = {  # what a column holds, and the ids that it means
    "bytes": (pa.array([n.encode() for n in NAMES]), NAMES),
    "large bytes": (pa.array([n.encode() for n in NAMES], pa.large_binary()), NAMES),
    "fixed bytes": (pa.array([n.encode() for n in NAMES], pa.binary(2)), NAMES),
    "floats": (pa.array([float(i) for i in range(N)]), NUMBERS),
    "halves": (pa.array([np.float16(i) for i in range(N)], pa.float16()), NUMBERS),
    "decimals": (pa.array([Decimal(i) for i in range(N)]), NUMBERS),
    "long decimals": (pa.array([Decimal(2**53 + i) * 10**9 + 1 for i in range(N)]), LONG),
    "integers": (pa.array(range(N), pa.uint8()), NUMBERS),
    "categories": (pa.array(NAMES).dictionary_encode(), NAMES),
    "large text": (pa.array(NAMES, pa.large_string()), NAMES),
}
WRONG = {
    "a fraction": pa.array([0.5, *range(1, N)]),
    "a decimal fraction": pa.array([Decimal("0.50"), *map(Decimal, range(1, N))]),
    "no number": pa.array([float("nan"), *range(1, N)]),
    "no UTF-8": pa.array([b"\xff", *(b"%d" % i for i in range(1, N))]),
    "booleans": pa.array([True, False] * 3),
    "nothing": pa.array(["", *NAMES[1:]]),
}


def test_examples_in_the_docstrings():
    found = doctest.testmod(module)
    assert found.attempted > 1 and found.failed == 0


@pytest.mark.parametrize("suffix", [".parquet", ".Parquet"])
@pytest.mark.parametrize("kind", SPELT)
def test_a_column_of_a_parquet_file(tmp_path, kind, suffix):
    column, names = SPELT[kind]
    path = tmp_path / f"f{suffix}"
    pq.write_table(pa.table({"id": column, "embedding": X.tolist(), "score": X[:, 0].astype(float)}), path)
    assert read_ids(path) == read_labelled([path]) == names
    found = read_features(path)
    assert found.ids == names
    pq.write_table(pa.table({"id": column, "worry": np.arange(N) / 2}), tmp_path / f"s{suffix}")
    joined = join_columns(found, tmp_path / f"s{suffix}")
    assert select(joined, "worry", 2, labelled=read_ids(path)[-1:]).ids == (names[-2], names[-3])


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_id_is_named_with_its_row(tmp_path, kind):
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"id": WRONG[kind], "embedding": X.tolist()}), path)
    for read in (read_ids, read_features):
        with pytest.raises(DataError, match=r"f\.parquet: row 1 has the id .*; text or an integer is needed"):
            read(path)


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.float32, np.float64, "U4", "S4"])
def test_an_array_of_ids(tmp_path, dtype):
    with open(tmp_path / "ids.NPY", "wb") as f:
        np.save(f, np.arange(N).astype(dtype))
    assert read_ids(tmp_path / "ids.NPY") == NUMBERS
    for values in (np.arange(N) + 0.5, np.asarray([True, False]), np.arange(4).reshape(2, 2), np.ones(2, complex)):
        np.save(tmp_path / "bad.npy", values)
        with pytest.raises(DataError, match=r"ids are one row of text or integers|row 1 has the id 0\.5"):
            read_ids(tmp_path / "bad.npy")


def test_json_and_other_cases_of_the_suffix(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(["p0", 1, 2.0]))
    assert read_ids(tmp_path / "a.json") == ("p0", "1", "2")
    (tmp_path / "b.JSON").write_text(json.dumps([{"id": 0.0}, {"id": "p1"}]))
    assert read_ids(tmp_path / "b.JSON") == ("0", "p1")
    (tmp_path / "c.jsonl").write_text('{"id": 0.0}\n{"id": 1.0}\n')
    assert read_ids(tmp_path / "c.jsonl") == ("0", "1")
    (tmp_path / "d.TXT").write_text("p0\np1\n")
    assert read_ids(tmp_path / "d.TXT") == ("p0", "p1")
    (tmp_path / "e.CSV").write_text("id,x\n007,1\n")
    assert read_ids(tmp_path / "e.CSV") == ("007",)
    (tmp_path / "f.json").write_text('["a", null]')
    with pytest.raises(DataError, match="row 2 has the id None"):
        read_ids(tmp_path / "f.json")


def test_text_that_pandas_made_of_floats_is_known_by_the_rows_that_there_are(tmp_path):
    """7.0 in CSV is 7 where there is a row 7 and none 7.0."""
    pq.write_table(pa.table({"id": NUMBERS, "embedding": X.tolist()}), tmp_path / "f.parquet")
    found = read_features(tmp_path / "f.parquet")
    (tmp_path / "s.csv").write_text("id,worry\n" + "".join(f"{i}.0,{i}.5\n" for i in range(N)))
    joined = join_columns(found, tmp_path / "s.csv")
    assert select(joined, "worry", 2).ids == ("5", "4")
    assert select(joined, "worry", 2, labelled=read_ids(tmp_path / "s.csv")[4:]).ids == ("3", "2")
    versions = pa.table({"id": ["1", "1.0", "2"], "embedding": X[:3].tolist()})
    pq.write_table(versions, tmp_path / "g.parquet")
    (tmp_path / "t.csv").write_text("id,worry\n1.0,10\n1,20\n2,0\n")
    assert select(join_columns(read_features(tmp_path / "g.parquet"), tmp_path / "t.csv"), "worry", 2).ids == (
        "1",
        "1.0",
    )
