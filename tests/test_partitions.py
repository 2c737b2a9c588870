"""A choice in parts (GreeDi): what it is, how close it comes, and what it refuses."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edjax import select
from edjax.data.features import Features
from edjax.keep.errors import UsageError
from edjax.keep.store import read_json
from edjax.kernels import facility_location, reference
from edjax.selection.partitions import part_of

N, PARTS, BUDGET = 240, 4, 12


def pool(n=N, seed=0):
    rng = np.random.default_rng(seed)
    centres = 3 * rng.normal(size=(20, 6))
    x = (centres[rng.integers(0, 20, n)] + rng.normal(size=(n, 6))).astype(np.float32)
    facts = {"task": np.asarray([f"t{i % 3}" for i in range(n)], object), "n_prompt_tokens": np.full(n, 3)}
    return Features(tuple(f"r{i}" for i in range(n)), x, {"worry": x[:, 0].copy()}, facts, "digest")


def in_parts(strategy, budget=BUDGET, found=None, **options):
    return select(found or pool(), strategy, budget, partitions=PARTS, normalise="none", **options)


def by_hand(first, second, labelled=()):
    """Rows of the union of what `first` picks of each part, as `second` picks among them."""
    part = part_of(pool().ids, PARTS)
    union = []
    for i in range(PARTS):
        rows = np.union1d(np.flatnonzero(part == i), labelled).astype(int)
        union += rows[first(pool().embeddings[rows], np.searchsorted(rows, labelled))].tolist()
    rows = np.union1d(union, labelled).astype(int)
    return rows[second(pool().embeddings[rows], np.searchsorted(rows, labelled))].tolist()


@pytest.mark.parametrize("labelled", [[], [3, 100]])
def test_k_center_in_parts_is_greedi(labelled):
    def twin(x, given):
        return np.asarray(reference.k_center(x, BUDGET, labelled=given.tolist()).indices)

    got = in_parts("k_center", labelled=[f"r{i}" for i in labelled])
    assert got.indices.tolist() == by_hand(twin, twin, labelled)


def test_facility_location_covers_its_part_and_then_all_rows_with_one_width():
    x = pool().embeddings.astype(np.float64)

    def spread(rows):
        return np.square(rows - rows.mean(axis=0)).sum(axis=1).mean()

    def width(rows):
        return 0.25 * spread(x) / spread(rows.astype(np.float64))

    def first(rows, given):
        return np.asarray(facility_location(rows, BUDGET, bandwidth=width(rows)).indices)

    def second(rows, given):
        return np.asarray(facility_location(rows, BUDGET, bandwidth=width(rows), represented=x).indices)

    got = in_parts("facility_location")
    assert got.indices.tolist() == by_hand(first, second)
    total = reference.facility_location(x, BUDGET, follow=got.indices).gains.sum()
    np.testing.assert_allclose(got.gains.sum(), total, rtol=1e-4, err_msg="gains are those of covering the whole pool")


@pytest.mark.parametrize("seed", range(3))
def test_it_keeps_most_of_the_value(seed):
    found = pool(600, seed)
    whole = select(found, "facility_location", 30, normalise="none")
    parts = select(found, "facility_location", 30, normalise="none", partitions=6)
    assert parts.gains.sum() >= 0.97 * whole.gains.sum()


def test_the_order_of_rows_changes_nothing_and_one_part_is_the_whole():
    found, shuffle = pool(), np.random.default_rng(1).permutation(N)
    facts = {k: v[shuffle] for k, v in found.facts.items()}
    ids = tuple(found.ids[i] for i in shuffle)
    other = Features(ids, found.embeddings[shuffle], {"worry": found.scores["worry"][shuffle]}, facts, "digest")
    for strategy in ("k_center", "d_optimal"):  # of two rows that are like each other alone, coverage takes the first
        assert in_parts(strategy, found=found).ids == in_parts(strategy, found=other).ids
    one = select(found, "k_center", BUDGET, partitions=1)
    assert one.ids == select(found, "k_center", BUDGET).ids != in_parts("k_center").ids


@pytest.mark.parametrize("strategy", ["worry", "random"])
def test_what_is_sorted_is_the_same_in_parts(strategy):
    assert in_parts(strategy).ids == select(pool(), strategy, BUDGET).ids


def test_quotas_weights_tokens_and_small_parts_go_with_it():
    got = in_parts("k_center", group_by="task", quotas="balanced")
    assert sorted(int(i[1:]) % 3 for i in got.ids) == [0] * 4 + [1] * 4 + [2] * 4
    assert in_parts("facility_location", weight_by="worry").ids != in_parts("facility_location").ids
    spent = in_parts("facility_location", None, budget_tokens=20)
    assert len(spent) == 6 and spent.cost == 18
    every = select(pool(5), "k_center", 5, partitions=50)
    assert sorted(every.indices.tolist()) == list(range(5)), "parts without rows are passed over"


def test_what_chooses_no_row_at_a_time_is_refused():
    with pytest.raises(UsageError, match=r"nearest does not choose row by row.*--partitions"):
        in_parts("nearest")
    for parts in (0, -2):
        with pytest.raises(UsageError, match=f"partitions is {parts}; it is a number of parts, 1 or more"):
            select(pool(), "k_center", 3, partitions=parts)


def test_from_the_command_line(edjax_, tmp_path):
    found = pool()
    table = {"id": list(found.ids), "embedding": found.embeddings.tolist(), "n_prompt_tokens": [3] * N}
    pq.write_table(pa.table(table), tmp_path / "f.parquet")
    asked = ["select", tmp_path / "f.parquet", "--budget", BUDGET, "--partitions", PARTS, "--out", tmp_path / "out"]
    said = edjax_(*asked, "--dry-run")[1]
    assert "4 times facility_location (resident) of 12 rows from 60 x 6" in said and "; then " in said
    edjax_(*asked)
    assert read_json(tmp_path / "out" / "manifest.json")["config"]["partitions"] == PARTS
    with (tmp_path / "out" / "selection.csv").open(newline="") as rows:
        chosen = tuple(row["id"] for row in csv.DictReader(rows))
    assert chosen == select(found, "facility_location", BUDGET, partitions=PARTS).ids


def test_a_selection_of_one_part_says_nothing_of_it():
    from edjax.selection.options import Options

    assert "partitions" not in Options().record() and Options(partitions=2).record()["partitions"] == 2
