"""Names of strategies: knobs, what is refused, and how recipes write them."""

import jax.numpy as jnp
import numpy as np
import pytest

from edjax.data.features import Features
from edjax.keep.errors import UsageError
from edjax.kernels import Method, Sorted, affordable, modular
from edjax.kernels import method as as_method
from edjax.selection.choose import Chooser, select
from edjax.selection.cost import stream_above
from edjax.selection.options import Options
from edjax.selection.selection import read_selection, write_selection
from edjax.selection.strategies import STRATEGIES, directory, of_table, strategy_name, strategy_of
from edjax.study.recipe import Recipe, read_recipe


def recipe(strategies, **more):
    return Recipe(pool="p", evaluation="e", out="o", strategies=strategies, **more)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_plain_name_is_the_method_of_the_table(name):
    assert of_table(name) is STRATEGIES[name] and strategy_name(STRATEGIES[name]) == name


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("facility_location:bandwidth=.5", "facility_location:bandwidth=0.5"),
        ("facility_location:bandwidth=0.25", "facility_location"),
        ("facility_location:bandwidth=1:similarity=cosine", "facility_location:similarity=cosine:bandwidth=1.0"),
        ("d_optimal:centre=true", "d_optimal:centre=True"),
        ("d_optimal:ridge=2e-3:centre=False", "d_optimal:ridge=0.002"),
    ],
)
def test_knobs_follow_the_name(given, name):
    method = of_table(given)
    assert strategy_name(method) == name and of_table(name) == method


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("facility_location:bandwith=1", "has no knob 'bandwith'; did you mean bandwidth?"),
        ("facility_location:bandwidth=0", "facility_location:bandwidth=0 is not a number above 0"),
        ("facility_location:bandwidth=nan", "is not a number above 0"),
        ("facility_location:bandwidth=wide", "is not a number above 0"),
        ("facility_location:similarity=dot", "is not one of rbf, cosine"),
        ("facility_location:form=tiled", "has no knob 'form'"),
        ("facility_location:0.5", "is not of the form facility_location:knob=value"),
        ("k_center:first=3", "has no knob 'first' (it has none)"),
        ("facility_location:epsilon=1", "facility_location:epsilon=1 is not a number above 0 and below 1"),
        ("d_optimal:centre=maybe", "is not true or false"),
        ("random:seed=3", "has no knob 'seed'"),
        ("facility_location:bandwidth=1:bandwidth=2", "is given 'bandwidth' twice"),
        ("facility_location:", "is not of the form"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(given, said):
    with pytest.raises(UsageError) as e:
        strategy_of(given, ())
    assert said in str(e.value)


def test_stochastic_greedy_is_drawn_by_the_seed_and_anew_for_every_budget():
    rng = np.random.default_rng(0)
    pool = Features(tuple(f"r{i}" for i in range(400)), rng.normal(size=(400, 8)).astype(np.float32), {}, {}, "d")

    def chosen(seed, budgets):
        asked = Options(seed=seed, normalise="l2")
        return [s.ids for s in Chooser(pool, asked).choose("facility_location:epsilon=0.5", budgets)]

    assert chosen(0, [20]) == chosen(0, [20]) != chosen(1, [20])
    five, twenty = chosen(0, [5, 20])
    assert five != twenty[:5] and chosen(0, [5]) == [five]
    assert recipe(["random", "facility_location:epsilon=0.5"]).choice_seed("facility_location:epsilon=0.5", 3) == 3


def test_a_score_may_have_any_name():
    assert strategy_of("facility_location:bandwidth=9x", {"facility_location:bandwidth=9x"}).needs == (
        "facility_location:bandwidth=9x",
    )


def test_a_score_whose_name_begins_like_a_strategy_is_chosen_by(tmp_path):
    pool = features_of(20, scores={"mean_entropy:top": np.arange(20, dtype=np.float32)})
    got = select(pool, "mean_entropy:top", 2)
    assert got.ids == ("r19", "r18") and stream_above("mean_entropy:top", 100) is not None
    assert (
        read_selection(write_selection(got, pool, None, tmp_path / "o", config={"strategy": got.strategy})).ids
        == got.ids
    )


def features_of(n, **more):
    x = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    return Features(tuple(f"r{i}" for i in range(n)), x, more.get("scores", {}), {}, "d")


def test_a_bandwidth_is_said_once():
    with pytest.raises(UsageError, match=r"the option bandwidth says 0\.01; give one"):
        select(features_of(20), "facility_location:bandwidth=5", 3, bandwidth=0.01)


@as_method
class Three(Method):
    """Can pick three rows only; reads a score where there is one."""

    name = "three"
    summary = "three rows"
    paper = "none"
    takes = ("mean_entropy",)

    def objective(self, ground, *, block, precision, shards):
        first = jnp.where(jnp.arange(ground.n) < 3, 1.0, 0.0)
        worth = first + ground.columns.get("mean_entropy", 0.0)
        return affordable(modular(worth, ground.given), 1 - first, 0.0)


@as_method
class ByNorm(Sorted):
    name = "by_norm"
    summary = "longest embedding first"
    paper = "none"
    needs = ("embedding",)

    def order_by(self, ground):
        return np.linalg.norm(ground.columns["embedding"], axis=1)


def test_methods_of_others_are_served(monkeypatch):
    monkeypatch.setitem(STRATEGIES, "three", Three())
    monkeypatch.setitem(STRATEGIES, "by_norm", ByNorm())
    pool = features_of(20, scores={"mean_entropy": np.arange(20, dtype=np.float32)})
    assert select(pool, "three", 3).ids == ("r2", "r1", "r0"), "the score that it takes was there"
    with pytest.raises(UsageError, match="three finds 3 of 5 rows that it may pick"):
        select(pool, "three", 5)
    longest = np.argsort(-np.linalg.norm(pool.embeddings, axis=1))[:4]
    assert select(pool, "by_norm", 4, normalise="none").ids == tuple(f"r{i}" for i in longest)


def test_what_a_selection_cannot_serve_is_said():
    pool = features_of(20, scores={"mean_entropy": np.linspace(0, 1, 20, dtype=np.float32)})
    few = select(pool, "gist:strength=1000", 9)
    assert 1 < len(few.ids) < 9, "distance is worth more than rows"
    for strategy, options, said in [
        ("gist", {"group_by": "cluster:2"}, "may leave a part of its budget, which --group-by cannot pass on"),
        ("gist", {"budget_tokens": 9}, "which --budget-tokens cannot pass on"),
        ("gist:utility=mean_margin", {}, "gist: mean_margin must be finite and not negative"),
    ]:
        scores = {**pool.scores, "mean_margin": -pool.scores["mean_entropy"]}
        with pytest.raises(UsageError, match=said):
            select(Features(pool.ids, pool.embeddings, scores, {}, "d"), strategy, 9, **options)


def test_a_name_is_part_of_a_directory_s():
    assert directory("facility_location:bandwidth=0.5") == "facility_location_bandwidth=0.5"


def test_a_recipe_names_knobs_and_options():
    got = recipe(
        [
            "random",
            {"facility_location": {"bandwidth": 0.5}},
            {"k_center": {"normalise": "l2", "prefilter": "mean_nll"}},
            {"tasks": {"strategy": "random", "group_by": "task"}},
            "facility_location:bandwidth=.25",
            {"d_optimal": None},
        ],
        finetune_strategies=["random", {"facility_location": {"bandwidth": 0.5}}],
    )
    both = "k_center:normalise=l2:prefilter=mean_nll"
    wide = "facility_location:bandwidth=0.5"
    assert got.strategies == ("random", wide, both, "tasks", "facility_location", "d_optimal")
    assert got.trained == ("random", wide)
    strategy, options = got.choice(both)
    assert (strategy, options.normalise, options.prefilter) == ("k_center", "l2", "mean_nll")
    assert got.choice("tasks")[0] == "random" and got.choice_seed("tasks", 4) == 4 and got.choice_seed(wide, 4) == 0
    assert recipe(list(got.strategies), variants=got.variants).strategies == got.strategies


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"facility_location": {"bandwith": 0.5}}, "unknown option 'bandwith'"),
        ({"facility_location": 3}, "is not of the form {name: {knob: value}}"),
        ({"facility_location": {}, "k_center": {}}, "is not of the form"),
        ({"other": {"strategy": "nothing"}}, "its strategy is none of"),
        ({"facility_locatoin": {"bandwidth": 0.5}}, "unknown strategy 'facility_locatoin'; did you mean"),
        ({"facility_location": {"bandwidth": -1}}, "is not a number above 0"),
        ({"random": {"strategy": "k_center"}}, "has the name of a strategy"),
        ({"facility_location_bandwidth=0.5": {"strategy": "k_center"}}, "would be written to one directory"),
        ({"mine": {"bandwidth": 0.5}}, "'mine' is a name of this recipe"),
    ],
)
def test_a_recipe_s_entry_that_makes_no_sense(entry, said):
    mine = {"mine": {"strategy": "facility_location"}}
    with pytest.raises(UsageError) as e:
        recipe(["random", "facility_location:bandwidth=0.5", entry], variants=mine)
    assert said in str(e.value)


def test_an_override_may_name_what_the_file_names(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "pool: p\nevaluation: e\nout: o\nselect: {strategies: [{mine: {strategy: random, group_by: task}}]}\n"
    )
    got = read_recipe(tmp_path / "r.yaml", ["select.strategies=[random,mine]"])
    assert got.strategies == ("random", "mine") and got.choice("mine")[1].group_by == "task"


def test_entries_are_one_whatever_the_order_of_their_keys():
    got = recipe(
        [{"random": {"group_by": "task", "quotas": "balanced"}}],
        finetune_strategies=[{"random": {"quotas": "balanced", "group_by": "task"}}],
    )
    assert got.trained == got.strategies
    assert recipe("facility_location:bandwidth=.5").strategies == ("facility_location:bandwidth=0.5",)
    assert recipe([{"facility_location": {"epsilon": None}}]).strategies == ("facility_location",)
    with pytest.raises(UsageError, match="which is not text; write a list"):
        recipe({"facility_location": {"bandwidth": 0.5}})


def test_one_name_cannot_stand_for_two_things():
    with pytest.raises(UsageError, match="stands for two things"):
        recipe([{"mine": {"strategy": "random"}}, {"mine": {"strategy": "k_center"}}])
