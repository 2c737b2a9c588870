"""Features from `edjax score` or from the user's own tools: read right, or refused by name."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edjax.data.features import read_features
from edjax.keep.errors import DataError
from edjax.keep.store import atomic_write, writing
from edjax.selection.choose import select

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def columns(**change):
    """The columns of four rows; None takes one away."""
    given = {"id": ["a", "b", "c", "d"], "embedding": pa.array(X.tolist(), pa.list_(pa.float32()))}
    return pa.table({k: v for k, v in (given | change).items() if v is not None})


def parquet(path, **change):
    pq.write_table(columns(**change), path)
    return path


def directory(path, tables, finish=True):
    """What `edjax score` leaves: shards in order of length, with the pool's row in a column."""
    with writing(path, kind="features", config={}, inputs={}) as artifact:
        for i, table in enumerate(tables):
            with atomic_write(path / f"shard-{i:05d}.parquet") as f:
                pq.write_table(table, f)
        if finish:
            artifact.finish(pool="pool.jsonl")
    return path


def shards():
    table = columns(row=[3, 0, 2, 1], mean_nll=pa.array([4.0, 1.0, 3.0, 2.0], pa.float32()))
    return [table.slice(0, 3), table.slice(3)]


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.float16(), pa.int32()])
@pytest.mark.parametrize("fixed", [True, False])
def test_a_parquet_of_the_user_s_own(tmp_path, kind, fixed):
    flat = pa.array(X.ravel()).cast(kind) if kind != pa.float16() else pa.array(X.ravel().astype(np.float16))
    shape = (
        pa.FixedSizeListArray.from_arrays(flat, 3)
        if fixed
        else pa.ListArray.from_arrays(pa.array([0, 3, 6, 9, 12], pa.int32()), flat)
    )
    got = read_features(parquet(tmp_path / "f.parquet", embedding=shape))
    assert got.ids == ("a", "b", "c", "d") and len(got) == 4
    assert got.embeddings.dtype == np.float32 and got.embeddings.tolist() == X.tolist()
    assert got.scores == {} and got.facts == {}


def test_large_lists_are_read_too(tmp_path):
    lists = pa.array(X.tolist(), pa.large_list(pa.float32()))
    assert read_features(parquet(tmp_path / "f.parquet", embedding=lists)).embeddings.tolist() == X.tolist()


def test_further_float_columns_are_scores_by_their_name(tmp_path):
    path = parquet(tmp_path / "f.parquet", worry=[0.5, None, 2.0, 1.0], tokens=[4, 3, 2, 1], text=["w", "x", "y", "z"])
    got = read_features(path)
    assert list(got.scores) == ["worry"] and list(got.facts) == ["tokens", "text"]
    np.testing.assert_array_equal(got.scores["worry"], np.float32([0.5, np.nan, 2, 1]))
    assert got.scores["worry"].dtype == np.float32 and got.facts["tokens"].tolist() == [4, 3, 2, 1]
    assert select(got, "worry", 2, drop_invalid=True).ids == ("c", "d")
    with pytest.raises(DataError, match=r"1 row has NaN or infinite features \(b\)"):
        select(got, "worry", 2)


def test_integer_ids_are_text(tmp_path):
    assert read_features(parquet(tmp_path / "f.parquet", id=[4, 3, 2, 1])).ids == ("4", "3", "2", "1")


def test_a_directory_comes_back_in_the_pool_s_order(tmp_path):
    got = read_features(directory(tmp_path / "f", shards()))
    assert got.ids == ("b", "d", "c", "a")
    assert got.embeddings.tolist() == X[[1, 3, 2, 0]].tolist()
    assert got.scores["mean_nll"].tolist() == [1, 2, 3, 4] and "row" not in got.facts


def test_the_digest_is_that_of_the_content(tmp_path):
    one, same = (read_features(directory(tmp_path / n, shards())).digest for n in "ab")
    other = read_features(directory(tmp_path / "c", shards()[:1])).digest
    assert one == same != other
    single = [read_features(parquet(tmp_path / f"{n}.parquet", id=list(n))).digest for n in ("abcd", "abce")]
    assert single[0] != single[1]


def test_a_file_that_the_manifest_does_not_know_is_not_read(tmp_path):
    path = directory(tmp_path / "f", shards())
    pq.write_table(columns(id=list("wxyz"), row=[4, 5, 6, 7]), path / "shard-00002.parquet")
    assert read_features(path).ids == ("b", "d", "c", "a")


def test_a_half_done_directory_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not complete: run the command that writes it again"):
        read_features(directory(tmp_path / "f", shards(), finish=False))


def test_a_damaged_shard_is_named(tmp_path):
    path = directory(tmp_path / "f", shards())
    shard = path / "shard-00001.parquet"
    good = shard.read_bytes()
    shard.write_bytes(good[:-9])
    with pytest.raises(DataError, match=r"shard-00001\.parquet is missing or damaged"):
        read_features(path)
    shard.write_bytes(b"\0" * len(good))  # of the right size: only reading it tells
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_features(path)
    shard.unlink()
    with pytest.raises(DataError, match=r"shard-00001\.parquet is missing"):
        read_features(path)


def test_no_such_file_says_how_to_make_it(tmp_path):
    with pytest.raises(DataError, match="do not exist; `edjax score POOL --out"):
        read_features(tmp_path / "f")


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "f.parquet").write_text('{"id": 1}\n')
    with pytest.raises(DataError, match=r"f\.parquet cannot be read as Parquet"):
        read_features(tmp_path / "f.parquet")


RAGGED = [[1.0], [1.0, 2.0], [1.0], [1.0]]
WRONG = {
    "no id": ({"id": None}, r"has no column \['id'\]; found \['embedding'\]"),
    "no embedding": ({"embedding": None}, r"has no column \['embedding'\]; found \['id'\]"),
    "ragged": ({"embedding": RAGGED}, r"embeddings have lengths \[1, 2\]; every row needs the same"),
    "empty": ({"embedding": [[]] * 4}, "embeddings have lengths"),
    "empty of floats": ({"embedding": pa.array([[]] * 4, pa.list_(pa.float32()))}, r"embeddings have lengths \[0\]"),
    "a null": ({"embedding": [[1.0], None, [1.0], [1.0]]}, "1 rows have no embedding"),
    "no list": ({"embedding": [1.0, 2.0, 3.0, 4.0]}, "'embedding' holds double; a list of numbers"),
    "text": ({"embedding": ["1,2", "3,4", "5,6", "7,8"]}, "'embedding' holds (large_)?string; a list of numbers"),
    "lists of text": ({"embedding": [["1"], ["2"], ["3"], ["4"]]}, "a list of numbers"),
    "an id twice": ({"id": ["a", "b", "a", "d"]}, "id 'a' stands twice"),
    "ids alike as text": ({"id": ["a", "b", "c", "b"]}, "id 'b' stands twice"),
    "a null id": ({"id": ["a", None, "c", "d"]}, "1 rows have no id"),
}


@pytest.mark.parametrize("case", WRONG)
def test_columns_that_do_not_fit_are_named(tmp_path, case):
    change, said = WRONG[case]
    if case == "empty":
        said = "embeddings have lengths|a list of numbers"
    with pytest.raises(DataError, match=said) as e:
        read_features(parquet(tmp_path / "f.parquet", **change))
    assert "f.parquet" in str(e.value)


def test_no_rows_are_refused(tmp_path):
    pq.write_table(columns().slice(0, 0), tmp_path / "f.parquet")
    with pytest.raises(DataError, match="holds no rows"):
        read_features(tmp_path / "f.parquet")


def test_a_null_inside_an_embedding_is_an_invalid_row(tmp_path):
    rows = [[1.0, 2.0], [3.0, None], [5.0, 6.0], [7.0, 8.0]]
    got = read_features(parquet(tmp_path / "f.parquet", embedding=pa.array(rows, pa.list_(pa.float32()))))
    with pytest.raises(DataError, match=r"1 row has NaN or infinite features \(b\)"):
        select(got, "k_center", 2)
