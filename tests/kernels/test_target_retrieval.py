"""RDS+ and ROCKET: worked examples, and turns and lists played out in plain NumPy on random problems."""

import numpy as np
import pytest
from kernel_cases import mixture

from edjax.kernels import AtMost, Ground, RdsPlus, Rocket, select
from edjax.kernels.contract import check_method
from edjax.kernels.streamed import select_streamed


def with_cosines(like):
    """Rows and targets whose cosines are these (m, n), up to one factor: targets are axes, and one more is the rest."""
    like = 0.5 * np.asarray(like)
    return np.concatenate([like, np.sqrt(1 - (like**2).sum(0))[None]]).T, np.eye(len(like) + 1)[: len(like)]


SCORES = [[0.9, 0.8, 0.1, 0.3], [0.95, 0.7, 0.2, 0.1], [0.5, 0.6, 0.65, 0.4]]


@pytest.mark.parametrize(("taken", "order"), [("skip", [0, 1, 2, 3]), ("forfeit", [0, 2, 1, 3])])
def test_rds_plus_worked_example(taken, order):
    x, z = with_cosines(SCORES)
    assert select(RdsPlus(taken=taken), Ground({"embedding": x}, target={"embedding": z}), 4).indices.tolist() == order


def played(like, taken, budget):
    """The turns, one after the other, each target with its own list."""
    lists = [list(np.argsort(-row, kind="stable")) for row in like]
    picks, turn = [], 0
    while len(picks) < budget:
        own = lists[turn % len(lists)]
        turn += 1
        if taken == "skip":
            picks.append(next(j for j in own if j not in picks))
        elif (j := own.pop(0)) not in picks:
            picks.append(j)
    return picks


@pytest.mark.parametrize("taken", ["skip", "forfeit"])
def test_rds_plus_is_the_turns_played_on_50_problems(taken):
    for seed in range(50):
        x, z = mixture(seed, 60, 6), mixture(seed + 1000, 5, 6)
        a, b = (v.astype(np.float64) / np.linalg.norm(v.astype(np.float64), axis=1, keepdims=True) for v in (z, x))
        got = select(RdsPlus(taken=taken), Ground({"embedding": x}, target={"embedding": z}), 15)
        assert got.indices.tolist() == played(a @ b.T, taken, 15), seed


def test_a_second_round_goes_on_where_the_first_ended():
    x, z = mixture(3, 60, 6), mixture(4, 5, 6)
    for method in (RdsPlus(), RdsPlus(taken="forfeit")):
        whole = select(method, Ground({"embedding": x}, target={"embedding": z}), 15).indices.tolist()
        again = select(method, Ground({"embedding": x}, target={"embedding": z}, given=np.array(whole[:7])), 8)
        assert again.indices.tolist() == whole[7:]


def test_a_target_that_holds_nan_has_no_turn():
    x, z = mixture(3, 60, 6), mixture(4, 5, 6)
    holed = z.copy()
    holed[2] = np.nan
    for method in (RdsPlus(), RdsPlus(taken="forfeit"), Rocket()):
        one = select(method, Ground({"embedding": x}, target={"embedding": np.delete(z, 2, axis=0)}), 15)
        assert select(method, Ground({"embedding": x}, target={"embedding": holed}), 15).indices.tolist() == (
            one.indices.tolist()
        )


# ROCKET

ROWS = np.array([[1, 0], [0.999, 0.0447], [0.98, 0.199], [0.6, 0.8], [0, 1], [-1, 0]])
TARGET = np.array([[1, 0], [0.8, 0.6]])


def test_rocket_s_worked_example():
    there = Ground({"embedding": ROWS}, target={"embedding": TARGET})
    whole = select(Rocket(distance=1e-9), there, 6)
    assert whole.indices.tolist() == [2, 1, 0, 3, 4, 5]
    length = np.linalg.norm(TARGET.mean(axis=0))
    far = np.sqrt(1 + length**2 - 2 * np.asarray(whole.gains))
    np.testing.assert_allclose(far, [0.129, 0.274, 0.316, 0.583, 1.140, 1.924], atol=6e-4)
    got = select(Rocket(), there, 4)
    assert got.indices.tolist() == [2, 3, -1, -1] and got.gains.tolist()[2:] == [-np.inf, -np.inf]


def test_a_chain_leaves_its_first_row_or_every_other():
    angle = np.deg2rad([0, 20, 40, 60])
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    there = Ground({"embedding": x}, target={"embedding": x[:1]})
    assert select(Rocket(), there, 4).indices.tolist() == [0, -1, -1, -1]
    assert select(Rocket(chains="greedy"), there, 4).indices.tolist() == [0, 2, -1, -1]


def listed(x, z, distance, chains, budget):
    unit = [v.astype(np.float64) / np.linalg.norm(v.astype(np.float64), axis=1, keepdims=True) for v in (x, z)]
    far = np.linalg.norm(unit[0] - unit[1].mean(axis=0), axis=1)
    order = np.argsort(far, kind="stable")[:budget]
    kept = []
    for t, i in enumerate(order):
        before = order[:t] if chains == "any" else np.array(kept, int)
        if not (1 - unit[0][before] @ unit[0][i] < distance).any():
            kept.append(int(i))
    return kept


@pytest.mark.parametrize("chains", ["any", "greedy"])
def test_rocket_is_the_list_cut_and_thinned_on_50_problems(chains):
    fewer = 0
    for seed in range(50):
        x, z = mixture(seed, 60, 6), mixture(seed + 1000, 5, 6)
        method = Rocket(chains=chains, distance=0.02 + 0.01 * (seed % 5))
        got = select(method, Ground({"embedding": x}, target={"embedding": z}), 15).indices.tolist()
        kept = listed(x, z, method.distance, chains, 15)
        assert got == kept + [-1] * (15 - len(kept)), seed
        fewer += len(kept) < 15
    assert fewer > 10


def test_rocket_in_tiles_and_with_labelled_rows():
    x, z = mixture(5, 700, 3), mixture(6, 5, 3)
    for chains in ("any", "greedy"):
        method = Rocket(distance=0.01, chains=chains)
        got = select(method, Ground({"embedding": x}, target={"embedding": z}), 600).indices
        kept = listed(x, z, 0.01, chains, 600)
        assert [j for j in got.tolist() if j >= 0] == kept and len(kept) < 600
    check_method(
        Rocket(chains="greedy"), Ground({"embedding": x[:60]}, target={"embedding": z}, given=np.array([4])), 9
    )


def test_what_makes_no_sense_is_refused():
    x = mixture(0, 20, 3)
    there = Ground({"embedding": x, "group": np.zeros(20, int)}, target={"embedding": x[:3]})
    for method, said in [
        (RdsPlus(taken="share"), "taken must be 'skip' or 'forfeit', got 'share'"),
        (Rocket(chains="all"), "chains must be 'any' or 'greedy', got 'all'"),
        (Rocket(distance=-0.1), "distance must be a positive"),
        (AtMost(Rocket()), "no method can go around it"),
    ]:
        with pytest.raises(ValueError, match=said):
            select(method, there, 2)
    for method in (RdsPlus(), Rocket()):
        with pytest.raises(ValueError, match=f"{method.name} needs a target"):
            select(method, there._replace(target=None), 2)
        with pytest.raises(ValueError, match=f"{method.name} needs the rows on the device"):
            select_streamed(method, x, 2)
