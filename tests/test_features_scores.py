"""Score columns of one's own that hold no numbers, in files that a spreadsheet wrote."""

import gzip
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edjax.data.features import join_columns, read_features, survey
from edjax.keep.errors import DataError
from edjax.selection.choose import select

N = 12
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)


@pytest.fixture
def found(tmp_path):
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"id": [f"p{i}" for i in range(N)], "embedding": X.tolist(), "votes_n": range(N)}), path)
    return read_features(path)


def table(path, cells, name="votes", separator=","):
    head = f"id{separator}{name}\n"
    path.write_text(head + "".join(f"p{i}{separator}{cells(i)}\n" for i in range(N)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "options", [("votes", {}), ("k_center", {"weight_by": "votes"}), ("random", {"prefilter": "votes"})]
)
@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (lambda i: f'"0,{i}"', r"holds text \('0,0' in row 'p0'\) and is no score; write numbers with a point"),
        (lambda i: "high" if i == 3 else f"0.{i}", r"holds text \(.*\) and is no score; write numbers in every row"),
        (lambda i: "true", r"holds bool \(True in row 'p0'\) and is no score"),
    ],
)
def test_a_column_of_text_is_no_score_and_the_row_is_named(tmp_path, found, cells, said, options):
    joined = join_columns(found, table(tmp_path / "s.csv", cells))
    strategy, more = options
    with pytest.raises(DataError, match=f"the column 'votes' {said}"):
        select(joined, strategy, 3, **more)
    assert len(select(joined, "random", 3, group_by="votes", allow_fewer=True)) == 3, "it may still name groups"


def test_the_command_says_it_too(tmp_path, found, edjax_, fails):
    scores = table(tmp_path / "s.csv", lambda i: f'"0,{i}"')
    argv = ["select", tmp_path / "f.parquet", "--scores", scores, "--budget", 3, "--out", tmp_path / "o"]
    line = fails(3, *argv, "--strategy", "votes")
    assert (
        "the column 'votes' holds text ('0,0' in row 'p0') and is no score" in line and "in place of the comma" in line
    )
    line = fails(3, *argv, "--strategy", "votes_n")
    assert "the column 'votes_n' holds int64; of features, columns of floats are scores" in line and "--scores" in line
    assert "unknown strategy 'vots'" in fails(2, *argv, "--strategy", "vots")
    good = table(tmp_path / "t.csv", lambda i: f"0.{i}")
    argv[3] = good
    assert edjax_(*argv, "--strategy", "votes", "--dry-run")[1].startswith("votes of 3 rows from 12")
    assert edjax_(*argv, "--strategy", "votes")[0] == 0


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (
            lambda p: table(p, lambda i: "0,5", separator=";"),
            "the cells are separated by ';'; save it with commas, and numbers",
        ),
        (lambda p: table(p, lambda i: 1, separator="\t"), r"the cells are separated by '\\t'; save it with commas"),
        (lambda p: p.write_bytes("id,votes\np0,1\n".encode("utf-16")), "this is UTF-16; save it as `CSV UTF-8`"),
        (lambda p: p.write_bytes(b"id,votes\np0,caf\xe9\n"), "the column 'votes' is not UTF-8; save the file"),
        (lambda p: p.write_text("id,votes,votes\np0,1,2\n"), "the column 'votes' occurs twice; rename one of them"),
        (lambda p: p.write_text(""), "cannot be read as csv"),
    ],
)
def test_csv_that_does_not_fit(tmp_path, found, write, said):
    write(tmp_path / "s.csv")
    with pytest.raises(DataError, match=said):
        join_columns(found, tmp_path / "s.csv")


def test_csv_with_a_byte_order_mark_gzipped_or_in_capitals(tmp_path, found):
    text = table(tmp_path / "s.csv", lambda i: f"0.{i:02}", name="v").read_bytes()
    for name, data in (("S.CSV", b"\xef\xbb\xbf" + text), ("s.csv.gz", gzip.compress(text))):
        (tmp_path / name).write_bytes(data)
        assert select(join_columns(found, tmp_path / name), "v", 2).ids == ("p11", "p10")
    (tmp_path / "s.jsonl").write_text(json.dumps({"id": "p0", "v": 1}))
    with pytest.raises(DataError, match=r"scores are read from \.parquet, \.csv and \.csv\.gz"):
        join_columns(found, tmp_path / "s.jsonl")


def test_decimals_are_scores_and_what_is_empty_is_not_finite(tmp_path):
    path = tmp_path / "f.parquet"
    columns = {"id": [f"p{i}" for i in range(N)], "embedding": X.tolist()}
    values = [None, *(Decimal(i) / 4 for i in range(1, N))]
    pq.write_table(pa.table({**columns, "v": pa.array(values, pa.decimal128(8, 2))}), path)
    assert survey(path).scores == ("v",)
    with pytest.raises(DataError, match=r"1 row has NaN or infinite features \(p0\)"):
        select(read_features(path), "v", 2)
    assert select(read_features(path), "v", 2, drop_invalid=True).ids == ("p11", "p10")
