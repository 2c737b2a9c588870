"""Shares of the pool, and budgets of money: the same walk as tokens, and never more than was given."""

import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edjax import select
from edjax.data.features import Features
from edjax.keep.errors import DataError, UsageError
from edjax.keep.store import read_json
from edjax.selection.budgets import budget_of, rows_of
from edjax.selection.choose import Chooser
from edjax.selection.options import Options
from edjax.selection.tokens import prices
from edjax.study.recipe import Recipe

N = 60


def features(n=N, **facts):
    rng = np.random.default_rng(n)
    facts = {"n_prompt_tokens": rng.integers(1, 40, n).astype(np.int32)} | facts
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return Features(tuple(f"r{i}" for i in range(n)), x, {"s": rng.random(n, np.float32)}, facts, "d")


@pytest.mark.parametrize(
    ("text", "n", "rows"),
    [("10%", 60, 6), ("10%", 69, 6), ("10%", 5, 1), ("12.5%", 80, 10), ("100%", 7, 7), ("29%", 100, 29), ("1%", 0, 1)],
)
def test_a_share_is_rounded_down_and_at_least_one(text, n, rows):
    assert rows_of(budget_of(text), n) == rows  # 0.29 * 100 is 28.999999999999996 in floats


@pytest.mark.parametrize("text", ["0%", "101%", "-5%", "10", "x%", "%", "1e1%", ""])
def test_a_share_that_is_none_is_named(text):
    with pytest.raises(UsageError, match="budget"):
        select(features(), "random", text)


def test_a_share_is_of_the_rows_that_may_be_chosen():
    found = features()
    got = select(found, "k_center", "10%", labelled=tuple(f"r{i}" for i in range(20)))
    assert got.ids == select(found, "k_center", 4, labelled=tuple(f"r{i}" for i in range(20))).ids
    assert got.warning == "10% of 40 rows that may be chosen: 4"
    small, large = Chooser(found, Options()).choose("k_center", ["10%", "20%"])
    assert (len(small), len(large)) == (6, 12) and large.ids[:6] == small.ids
    assert len(select(found, "random", "10%", group_by="cluster:3")) == 6
    assert len(select(found, "random", "10%", prefilter="s")) == 6


# Money


@pytest.mark.parametrize("strategy", ["random", "s", "k_center", "facility_location"])
@pytest.mark.parametrize("amount", [0, 13, 200, 10**6])
def test_a_token_at_1_is_a_budget_of_tokens(strategy, amount):
    found = features()
    money = select(found, strategy, budget_cost=float(amount), cost_per_token=1)
    tokens = select(found, strategy, budget_tokens=amount)
    assert money.ids == tokens.ids and money.cost == tokens.cost
    assert money.gains is None or np.array_equal(money.gains, tokens.gains)


@pytest.mark.parametrize("seed", range(40))
def test_money_is_never_exceeded(seed):
    rng = np.random.default_rng(seed)
    amount, per_row = float(rng.choice([0, 0.7, 3, 11.1, 40 * rng.random()])), round(2 * rng.random(), 1 + seed % 4)
    per_token = round(0.1 * rng.random(), 2 + seed % 5)
    found = features()
    got = select(found, "random", budget_cost=amount, cost_per_row=per_row, cost_per_token=per_token)
    each = [Decimal(repr(per_row)) + Decimal(repr(per_token)) * int(t) for t in found.facts["n_prompt_tokens"]]
    total = sum((each[i] for i in got.indices), Decimal(0))
    assert total <= Decimal(repr(amount)) and got.cost == float(total)
    order, left, walk = select(found, "random", N).indices, Decimal(repr(amount)), []
    for i in order:
        if each[i] <= left:
            walk.append(i)
            left -= each[i]
    assert got.indices.tolist() == walk[: len(got)]


def test_money_adds_as_decimals():
    """Three rows at 0.1 are bought with 0.3; in floats 0.3 - 0.1 - 0.1 is less than 0.1."""
    got = select(features(), "random", budget_cost=0.3, cost_per_row=0.1)
    assert len(got) == 3 and got.cost == 0.3
    price = prices(features(2, n_prompt_tokens=np.asarray([3, 700])), Options(**MONEY))
    assert price.tolist() == [0.503, 1.2]


MONEY = {"budget_cost": 250, "cost_per_row": 0.5, "cost_per_token": 0.001}


def test_a_column_of_prices_and_rows_too():
    found = features(price=np.linspace(0.25, 3, N))
    got = select(found, "k_center", budget_cost=20, price_by="price")
    assert 0 < got.cost <= 20 and got.cost == pytest.approx(found.facts["price"][got.indices].sum())
    assert select(found, "k_center", 3, budget_cost=20, price_by="price").ids == got.ids[:3]
    assert "no row costs 0.1 or less" in select(found, "random", budget_cost=0.1, price_by="price").warning


def test_the_walk_goes_on_until_something_is_bought():
    score = -np.arange(N, dtype=np.float32)
    price = np.where(np.arange(N) < N - 5, 60, 1)
    found = Features(tuple(map(str, range(N))), np.ones((N, 2), np.float32), {"s": score}, {"p": price}, "d")
    assert select(found, "s", budget_tokens=50, cost_by="p").ids == tuple(map(str, range(N - 5, N)))
    got = select(found, "s", 2, budget_tokens=50, cost_by="p", prefilter="s")
    assert not len(got) and got.warning == "none of the rows looked at fits into 50: nothing is chosen"
    n = 1100
    later = Features(tuple(map(str, range(n))), np.ones((n, 2)), {"s": -np.arange(n)}, {"p": np.full(n, 60)}, "d")
    later.facts["p"][-1] = 1
    assert not len(select(later, "s", budget_tokens=50, cost_by="p")), "an order of all rows is not made for one"
    assert len(select(found, "random", budget_cost=1e300, cost_per_row=1e-300)) == N


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budget_cost": 5}, "does not say what a row costs"),
        ({"budget_cost": 5, "cost_per_row": 0, "cost_per_token": 0}, "does not say what a row costs"),
        ({"budget_cost": -5, "cost_per_row": 1}, "budget_cost -5 is not a number of 0 or more"),
        ({"budget_cost": float("nan"), "cost_per_row": 1}, "budget_cost nan"),
        ({"budget_cost": "5", "cost_per_row": 1}, "budget_cost '5'"),
        ({"budget_cost": 5, "cost_per_row": -1}, "cost_per_row -1"),
        ({"budget_cost": 5, "cost_per_token": float("inf")}, "cost_per_token inf"),
        ({"budget_cost": 5, "cost_per_row": 1, "budget_tokens": 9}, "two budgets of one walk; give one"),
        ({"budget_cost": 5, "cost_per_row": 1, "price_by": "p"}, "and cost_per_row says it too; give one"),
        ({"cost_per_row": 1}, "cost_per_row says what a row costs; budget_cost says how much is spent"),
    ],
)
def test_money_that_makes_no_sense_is_named(options, said):
    with pytest.raises(UsageError, match=said):
        select(features(), "random", **options)


@pytest.mark.parametrize(
    ("price", "said"),
    [
        ([0.0] * N, "every row costs 0 by 'price'"),
        ([1.0] * 59 + [-1], "costs -1"),
        ([1.0] * 59 + [np.nan], "costs nan"),
    ],
)
def test_prices_that_make_no_sense_are_named(price, said):
    with pytest.raises(DataError, match=said):
        select(features(price=np.asarray(price)), "random", budget_cost=5, price_by="price")


def test_a_record_of_before_has_no_money():
    assert "budget_cost" not in Options(budget_tokens=5).record()
    assert Options(**MONEY).record()["cost_per_token"] == 0.001


# The command


@pytest.fixture
def given(tmp_path):
    rows = [{"id": f"r{i}", "prompt": f"Question {i}?", "price": 0.25 + i % 3} for i in range(N)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = features()
    table = {"id": list(found.ids), "n_prompt_tokens": found.facts["n_prompt_tokens"]}
    pq.write_table(pa.table({**table, "embedding": found.embeddings.tolist()}), tmp_path / "f.parquet")
    return tmp_path


def command(given, *options, out="out"):
    base = ["select", given / "f.parquet", "--pool", given / "pool.jsonl", "--strategy", "random"]
    return [*base, *options, *(["--out", given / out] if out else [])]


def test_shares_on_the_command_line(edjax_, given):
    code, out, err = edjax_(*command(given, "--budget", "10%"))
    assert code == 0 and out.startswith("6 of 60 rows") and "edjax: note: 10% of 60 rows that may be chosen: 6" in err
    made = read_json(given / "out" / "manifest.json")
    assert made["config"]["budget"] == "10%" and made["warning"] == "10% of 60 rows that may be chosen: 6"
    code, out, _ = edjax_(*command(given, "--budget", "10%, 20%,10.0%", out="several"))
    assert code == 0 and {p.name for p in (given / "several").iterdir()} == {"random-10%", "random-20%"}
    code, out, _ = edjax_(*command(given, "--budget", "10%", "--dry-run", out=None))
    assert code == 0 and "10% of 60 rows: 6, before any are left out" in out


def test_money_on_the_command_line(edjax_, fails, given):
    code, out, err = edjax_(*command(given, "--budget-cost", "9.5:price", "--json"))
    assert code == 0, err
    chosen = [json.loads(line) for line in (given / "out" / "selected.jsonl").read_text().splitlines()]
    assert json.loads(out)["cost"] == sum(r["price"] for r in chosen) <= 9.5
    code, out, _ = edjax_(*command(given, "--budget-cost", "7:per_row=0.5:per_token=0.001", out="b"))
    assert code == 0 and " of 7 spent" in out
    code, out, _ = edjax_(*command(given, "--budget-cost", "7:per_row=0.5", "--dry-run", out=None))
    assert code == 0 and "random of 14 rows" in out and "(if the money buys 14 rows)" in out
    assert "two budgets of one walk" in fails(2, *command(given, "--budget-cost", "7:price", "--budget-tokens", 9))


# Recipes


def test_a_recipe_counts_shares_of_what_may_be_chosen():
    of = {"pool": "p", "evaluation": "e", "out": "o"}
    recipe = Recipe(**of, budgets=["10%", 30, "20.0 %"], warm_start=10, strategies=["random", {"k_center": {}}])
    assert recipe.budgets == ("10%", 30, "20%") and recipe.counted(110).budgets == (10, 30, 20)
    assert recipe.counted(110).rows == (10, 30, 20)
    with pytest.raises(UsageError, match="10% is a share"):
        recipe.rows  # noqa: B018
    for budgets, said in [(["0%"], "above 0"), (["ten"], "not a whole number"), ([2.5], "not a whole number")]:
        with pytest.raises(UsageError, match=said):
            Recipe(**of, budgets=budgets)


def test_a_run_of_a_share(tmp_path, capsys):
    """Cells, curves and the page count rows; the share stands in the run's manifest."""
    from edjax.demo.tiny import write_tiny_model
    from edjax.study.recipe import make_recipe
    from edjax.study.run import run

    rows = [{"id": f"r{i}", "prompt": f"{i}?", "response": str(i)} for i in range(12)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    given = {"pool": "pool.jsonl", "evaluation": "pool.jsonl", "out": str(tmp_path / "run"), "warm_start": 2}
    given |= {"model": str(write_tiny_model(tmp_path / "model")), "budgets": ["25%", 3], "max_steps": 1}
    recipe = make_recipe({**given, "strategies": ["random"], "metrics": ["response_loss"]}, tmp_path)
    results = run(recipe)
    assert [c["budget"] for c in results["cells"]] == [2, 3] and results["recipe"]["budgets"] == [2, 3]
    assert "edjax: budgets 25%, 3: 2, 3 rows" in capsys.readouterr().err
    assert read_json(tmp_path / "run" / "manifest.json")["grid"]["budgets_asked"] == ["25%", 3]
    assert run(recipe, show_progress=False) == results and "random" in results._repr_html_()
    assert results.plot().svg.startswith("<svg")
