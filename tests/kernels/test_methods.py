"""Every method of the table keeps the laws of `contract`, and says of itself what the table, the CLI and docs show."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import ground_for, mixture

from edjax.kernels import (
    METHODS,
    AtMost,
    Cost,
    DOptimal,
    FacilityLocation,
    Ground,
    KCenter,
    Method,
    Plus,
    Scaled,
    from_gains,
    maximize,
    option,
    plan,
    score_of,
    select,
)
from edjax.kernels import method as as_method
from edjax.kernels.contract import check_method
from edjax.kernels.streamed import select_streamed, streams

N = 61


ground = ground_for


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.nested])  # the others' tests are their own
def test_keeps_the_laws(name):
    method = METHODS[name]
    assert method.name == name
    there = ground(method, 1, given=np.array([3, 50]), valid=np.arange(N) % 3 > 0)
    weight = {"weight": np.random.default_rng(3).uniform(0.5, 2, N).astype(np.float32)}
    columns = {**there.columns, **(weight if "weight" in method.takes else {})}
    check_method(method, there._replace(columns=columns), 20)


@pytest.mark.parametrize("name", ["random", "mean_entropy", "k_center", "d_optimal", "facility_location"])
def test_keeps_them_from_nothing(name):
    check_method(METHODS[name], ground(METHODS[name]), 20)


@pytest.mark.parametrize("name", METHODS)
def test_knobs_say_what_they_are(name):
    for field in dataclasses.fields(METHODS[name]):
        assert field.metadata["help"], field.name


def test_what_streams_is_what_has_a_streamed_form():
    assert {n for n, m in METHODS.items() if streams(m)} == {"k_center", "d_optimal"}
    with pytest.raises(ValueError, match="facility_location needs the rows on the device"):
        select_streamed(METHODS["facility_location"], mixture(0, 20, 3), 5)


@pytest.mark.parametrize("name", ["k_center", "d_optimal"])
def test_streamed_picks_are_those_of_the_pool_in_memory(name):
    x, weight = mixture(4, 300, 6), np.random.default_rng(4).uniform(0.5, 2, 300).astype(np.float32)
    whole = select(METHODS[name], Ground({"embedding": x, "weight": weight}), 40)
    assert select_streamed(METHODS[name], x, 40, weights=weight).indices.tolist() == whole.indices.tolist()


def group(n=N):
    return np.arange(n) % 4


@pytest.mark.parametrize(
    "method",
    [
        AtMost(KCenter(), by="group", each=3),
        Scaled(METHODS["facility_location"], by="mean_entropy"),
        Plus((METHODS["d_optimal"], METHODS["mean_entropy"]), (1.0, 0.25)),
        AtMost(METHODS["mean_entropy"], by="group", each=3),
    ],
    ids=lambda m: m.name,
)
def test_methods_of_methods_keep_them(method):
    there = ground(method)
    columns = {**there.columns, "mean_entropy": np.random.default_rng(5).uniform(0.1, 1, N).astype(np.float32)}
    if "group" in method.needs:
        columns["group"] = group()
    check_method(method, there._replace(columns=columns), 10)


def test_streamed_rows_are_centred_before_they_are_weighted():
    x, weight = mixture(4, 300, 6) + 5, np.random.default_rng(4).uniform(0.5, 2, 300).astype(np.float32)
    whole = select(DOptimal(centre=True), Ground({"embedding": x, "weight": weight}), 40)
    assert select_streamed(DOptimal(centre=True), x, 40, weights=weight).indices.tolist() == whole.indices.tolist()


def test_a_method_of_another_s_class_is_not_taken_for_it():
    @as_method
    class Mine(KCenter):
        name = "mine"

    assert not streams(Mine())
    with pytest.raises(ValueError, match="mine needs the rows on the device"):
        select_streamed(Mine(), mixture(0, 20, 3), 5)


@as_method
class Pairs(Method):
    """A row gains by being like those picked before: gains grow, which lazy greedy does not allow for."""

    name = "pairs"
    summary = "rows like the picks"
    paper = "none"
    shrinks = False

    def objective(self, ground, *, block, precision, shards):
        x = jnp.asarray(ground.columns["embedding"], jnp.float32)
        sound = jnp.isfinite(x).all(axis=1)
        x = jnp.where(sound[:, None], x, 0)
        first = jnp.square(x[:, 0])

        def gains(held, rows):
            return jnp.exp(0.05 * (rows[0] @ held)) + rows[1]

        zero = jnp.zeros(x.shape[1])
        return from_gains((x, first), zero, gains, lambda h, row: h + row[0], given=ground.given, valid=sound)

    def gains(self, ground, rows):
        x = np.asarray(ground.columns["embedding"], np.float64)
        return np.exp(0.05 * (x @ x[rows].sum(axis=0))) + x[:, 0] ** 2


@pytest.mark.parametrize(
    "method", [Pairs(), AtMost(Pairs(), by="group", each=3), Scaled(Pairs(), by="quality")], ids=lambda m: m.name
)
def test_the_engine_of_a_method_is_that_of_methods_around_it(method):
    x = 0.5 * np.random.default_rng(8).normal(size=(N, 4))
    columns = {"embedding": x, "group": group(), "quality": np.ones(N)}
    check_method(method, Ground({k: columns[k] for k in method.needs}), 9)


def test_what_the_inner_method_says_holds_for_those_around_it():
    drawn = AtMost(FacilityLocation(epsilon=0.3), each=2)
    assert drawn.drawn and not drawn.nested and not AtMost(KCenter()).drawn
    assert plan(AtMost(FacilityLocation()), 1000, 8, 10).form == plan("facility_location", 1000, 8, 10).form
    assert plan(FacilityLocation(form="tiled"), 1000, 8, 10).form == "tiled"
    signed = np.random.default_rng(9).normal(size=N).astype(np.float32)
    columns = {"embedding": mixture(9, N, 4), "group": group(), "mean_entropy": signed, "quality": np.ones(N)}
    inner = AtMost(METHODS["mean_entropy"], by="group", each=4)
    check_method(Scaled(inner), Ground(columns), 10)
    check_method(Plus((inner, METHODS["d_optimal"])), Ground(columns), 10)


def test_what_makes_no_sense_is_refused_by_name():
    x = mixture(0, 6, 3)
    there = Ground({"embedding": x, "group": np.array([0, 0, 1, 1, 2, 2])})
    for method, said in [
        (AtMost(KCenter(), each=[1]), "each has 1 quotas, and there is a group 2"),
        (AtMost(KCenter(), each=1.5), "each must be a whole number"),
        (AtMost(KCenter(), each=-1), "each must be a whole number"),
        (AtMost(), "AtMost goes around a method"),
        (Plus(()), "Plus is a sum of methods"),
        (Plus((KCenter(),), (1.0, 2.0)), "2 weights for 1 methods"),
        (Plus((KCenter(),), (-1.0,)), "must be 0 or more"),
    ]:
        with pytest.raises(ValueError, match=said):
            select(method, there, 2)
    for ground, said in [
        (Ground({}), "no columns"),
        (Ground({"embedding": x, "weight": np.ones(4)}), r"weights must have shape \(6,\)"),
        (Ground({"embedding": x}, valid=np.array([0, 1])), "valid must be"),
        (Ground({"embedding": x}, valid=np.ones(1, bool)), "valid must be"),
        (Ground({"embedding": x}, target={"embedding": x}), "k_center reads no target"),
    ]:
        with pytest.raises(ValueError, match=said):
            select(KCenter(), ground, 2)
    both = Plus((KCenter(), METHODS["mean_entropy"]))
    with pytest.raises(ValueError, match=r"mean_entropy must have shape \(6,\)"):
        select(both, Ground({"mean_entropy": np.ones(4), "embedding": x}), 2)
    with pytest.raises(ValueError, match="'mean_entropy' is a single value"):
        select(both, Ground({"mean_entropy": np.float32(4), "embedding": x}), 2)
    with pytest.raises(ValueError, match="more than float32 can"):
        select(METHODS["mean_entropy"], Ground({"mean_entropy": np.array([1.0, 1e300])}), 1)

    class Plain(KCenter):
        pass

    for no_method in (Plain, "k_center"):
        with pytest.raises(ValueError, match="is no method"):
            select(no_method, there, 2)


def test_columns_that_are_not_read_may_be_anything():
    there = Ground({"text": np.array(["a", "b", "c"]), "embedding": np.eye(3), "score": [1.0, 2.0, 3.0]})
    assert len(select(KCenter(), there, 2).indices) == 2
    assert select(score_of("score"), there, 2).indices.tolist() == [2, 1]


def test_a_method_that_forgets_rows_without_numbers_is_told():
    @as_method
    class Forgets(Method):
        name = "forgets"
        summary = "the largest first"
        paper = "none"

        def objective(self, ground, *, block, precision, shards):
            x = jnp.square(jnp.asarray(ground.columns["embedding"], jnp.float32))
            return from_gains(x, jnp.zeros(()), lambda _, some: some.sum(1), lambda held, row: held + row.sum())

        def gains(self, ground, rows):
            return np.square(np.asarray(ground.columns["embedding"], np.float64)).sum(1)

    with pytest.raises(AssertionError, match="beside rows that hold NaN"):
        check_method(Forgets(), ground(METHODS["k_center"]), 5)


def test_a_price_is_never_exceeded():
    price = np.random.default_rng(6).integers(1, 9, N)
    there = ground(KCenter())
    got = select(Cost(KCenter(), total=30.0), there._replace(columns={**there.columns, "price": price}), 20)
    picks = np.asarray(got.indices)
    assert price[picks[picks >= 0]].sum() <= 30 and (picks >= 0).sum() > 3


# One from its gains


def covering(x, power=0.5, **options):
    def gains(covered, some):
        return ((covered + some) ** power - covered**power).sum(1)

    return from_gains(jnp.abs(x), jnp.zeros(x.shape[1]), gains, jnp.add, **options)


def test_an_objective_from_its_gains_is_greedy():
    x = mixture(7, N, 6).astype(np.float64)
    picks = np.asarray(maximize(covering(jnp.asarray(x, jnp.float32), given=jnp.array([4])), 20, block=8).indices)
    covered, taken = np.abs(x[4]), [4]
    for j in picks:
        gains = ((covered + np.abs(x)) ** 0.5 - covered**0.5).sum(1)
        gains[taken] = -np.inf
        assert gains[j] >= gains.max() * (1 - 1e-5)
        covered = covered + np.abs(x[j])
        taken.append(int(j))


def test_rows_without_numbers_come_last_and_leave_the_state_alone():
    x = jnp.asarray(mixture(8, 12, 3)).at[5].set(jnp.nan)
    got = maximize(covering(x, valid=jnp.isfinite(x).all(1)), 12)
    assert int(got.indices[-1]) == 5 and float(got.gains[-1]) == -np.inf
    assert np.isfinite(np.asarray(got.gains[:-1])).all()


# What breaks a law is named


@as_method
class Contrary(Method):
    """Says that it picks the largest, and picks the smallest."""

    name = "contrary"
    summary = "the smallest first"
    paper = "none"
    needs = ("score",)
    sign: float = option("which way", default=1.0, traced=True)

    def objective(self, ground, *, block, precision, shards):
        value = jnp.asarray(ground.columns["score"], jnp.float32)
        return from_gains(value, jnp.zeros(()), lambda _, some: 2 - self.sign * some, lambda state, row: state)

    def gains(self, ground, rows):
        return 2 + np.asarray(ground.columns["score"], np.float64)


def test_a_method_that_does_not_do_as_it_says_is_told():
    pool = Ground({"score": np.linspace(0, 1, 20)})
    with pytest.raises(AssertionError, match=r"pick 0 \(row 0\) gains 2.0 by definition, another row 3.0"):
        check_method(Contrary(), pool, 5)
    check_method(Contrary(sign=-1.0), pool, 5)


def test_a_traced_knob_compiles_once():
    from edjax.kernels.ground import _select

    there = ground(METHODS["facility_location"])
    for width in (0.1, 0.2):
        before = _select._cache_size()
        select(dataclasses.replace(METHODS["facility_location"], bandwidth=width), there, 5)
    assert _select._cache_size() == before
    assert jax.tree.leaves(Contrary()) == [1.0]


def test_a_column_that_is_missing_is_named():
    with pytest.raises(ValueError, match="mean_entropy needs the column 'mean_entropy'; there are embedding"):
        select(METHODS["mean_entropy"], Ground({"embedding": np.zeros((3, 2))}), 1)
