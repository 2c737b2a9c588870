"""The benchmark suite measures the same work on both sides, counts what was done, and shows what it wrote."""

import json
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner
from jax import lax

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks.harness import count, runner
from benchmarks.harness.data import mixture
from benchmarks.pages import render
from benchmarks.selectors import plain, roofline, scaling, selection
from edjax.kernels import facility_location, k_center, reference

ROOT = Path(__file__).parent.parent


@pytest.fixture
def results(monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    return tmp_path


def test_the_plain_loops_are_greedy():
    x = mixture(400, 16, centres=20)
    k = np.asarray(plain.k_center(x, budget=30))
    assert k.tolist() == reference.k_center(x, 30).indices.tolist()
    ridge = np.float32(5.0)
    d = np.asarray(plain.d_optimal(x, ridge, budget=30))
    assert d.tolist() == reference.d_optimal(x, 30, ridge=5.0).indices.tolist()


@pytest.mark.parametrize("kind", ["k_center-20k", "d_optimal-20k"])
def test_a_small_job(kind, monkeypatch, results):
    select, *_ = selection.JOBS[kind]
    monkeypatch.setitem(selection.JOBS, "small", (select, 300, 8, 20, 2))
    row = selection.job("small")
    assert row["same_set"] == 20 and row["ratio"] > 0
    assert {len(t["runs_s"]) for t in row["timed"].values()} == {2}
    written = json.loads(runner.write("small", [row], machine=runner.machine(), seed=0).read_text())
    assert written["rows"][0]["job"] == "small" and written["machine"]["cores"] and "jax" in written["versions"]


# The runner


def test_a_slow_function_is_timed_once():
    calls = {"slow": 0, "quick": 0}

    def call(name, seconds):
        calls[name] += 1
        time.sleep(seconds)

    out = runner.side_by_side(
        {"slow": partial(call, "slow", 0.03), "quick": partial(call, "quick", 0)}, repeats=3, slow_s=0.02
    )
    assert calls == {"slow": 2, "quick": 4}  # the first call is apart
    assert [len(out[n]["runs_s"]) for n in calls] == [1, 3] and out["slow"]["median_s"] >= 0.03


def test_merging_keeps_what_was_not_measured_again(results):
    on = runner.machine()
    runner.write("s", [{"job": "a", "v": 1, "commit": "old"}, {"job": "b", "v": 1}], machine=on)
    path = runner.write("s", [{"job": "b", "v": 2}, {"job": "c", "v": 2}], merge=True, machine=on)
    rows = json.loads(path.read_text())["rows"]
    assert [(r["job"], r["v"]) for r in rows] == [("a", 1), ("b", 2), ("c", 2)]
    assert rows[0]["commit"] == "old" and all({"commit", "date", "load"} <= set(r) for r in rows)
    with pytest.raises(ValueError, match=r"s\.json was measured on another machine \(cores"):
        runner.write("s", [], merge=True, machine={**on, "cores": -1})
    assert json.loads(runner.write("s", [{"job": "b"}], machine=on).read_text())["rows"][0]["job"] == "b"


def test_rows_measured_with_other_versions_say_so(results, monkeypatch):
    on = runner.machine()
    runner.write("s", [{"job": "a"}], machine=on)
    monkeypatch.setattr(runner, "versions", lambda: {"jax": "99"})
    rows = json.loads(runner.write("s", [{"job": "b"}], merge=True, machine=on).read_text())["rows"]
    assert rows[0]["versions"]["jax"] == jax.__version__ and "versions" not in rows[1]


def test_peak_memory_is_of_the_call_and_not_of_its_parent():
    held = np.ones(60_000_000)  # 480 MB here must not count there
    empty = runner.peak_rss("benchmarks.harness.runner:nothing")
    full = runner.peak_rss("benchmarks.harness.data:mixture", n=50_000, d=512)
    assert empty < held.nbytes and full - empty > 50_000 * 512 * 4
    with pytest.raises(RuntimeError, match="no_such failed in its own process"):
        runner.peak_rss("benchmarks.harness.runner:no_such")


def test_compile_time_is_without_the_run():
    assert runner.compile_s(lambda x: jnp.sin(x) @ x, jnp.ones((8, 8))) > 0


# Counting


def test_loops_and_branches_are_counted_as_they_ran():
    def f(x, turns):
        x = lax.fori_loop(0, turns, lambda i, x: x @ x, x)
        x = lax.cond(turns > 2, lambda x: lax.scan(lambda c, _: (c @ c, None), x, None, length=3)[0], lambda x: x, x)
        return jax.jit(jnp.matmul)(x, jnp.ones((4, 2)))

    eye = jnp.eye(4)
    assert count.work(f, eye, 5).flops == 8 * 2 * 4**3 + 2 * 4 * 4 * 2
    assert count.work(f, eye, 1).flops == 1 * 2 * 4**3 + 2 * 4 * 4 * 2
    product = count.work(jnp.matmul, jnp.ones((3, 5)), jnp.ones((5, 7)))
    assert product == (2 * 3 * 5 * 7, 4 * (15 + 35 + 21), [((3, 7), 5, 1)])


def test_the_work_of_a_selection():
    x, budget = jnp.asarray(mixture(500, 16, centres=20)), 100
    done = count.work(partial(k_center, budget=budget, shards=1), x)
    assert done.flops >= roofline.useful("k_center", 500, 16, budget)
    tiled = count.work(partial(facility_location, budget=budget, form="tiled", shards=1), x)
    rounds = int(facility_location(x, budget, form="tiled").refreshes)
    assert tiled.flops >= roofline.useful("facility_location", 500, 16, budget)
    assert max(times for _, _, times in tiled.products) == rounds


def test_products_behind_custom_rules_are_counted():
    def square(x):
        return x @ x

    ruled = jax.custom_vjp(square)
    ruled.defvjp(lambda x: (x @ x, x), lambda x, g: (g,))
    mapped = jax.custom_batching.custom_vmap(square)
    mapped.def_vmap(lambda *_: None)
    for f in (square, ruled, mapped, jax.checkpoint(square)):
        assert count.work(f, jnp.eye(4)).flops == 2 * 4**3
    with pytest.raises(NotImplementedError, match="would go uncounted"):
        count.work(lambda x: lax.custom_linear_solve(square, x, lambda f, b: f(b), symmetric=True), jnp.eye(4))


# Scaling and roofline


def test_an_exponent_is_found_with_its_error():
    x = [1.0, 2.0, 4.0, 8.0]
    exact = scaling.fit(x, [3 * v**1.5 for v in x])
    assert exact["exponent"] == pytest.approx(1.5) and exact["c"] == pytest.approx(3)
    assert exact["standard_error"] == pytest.approx(0, abs=1e-9) and exact["tail_exponent"] == pytest.approx(1.5)
    noisy = scaling.fit(x, [3 * v**1.5 * f for v, f in zip(x, (1.2, 0.8, 1.2, 0.8), strict=True)])
    assert abs(noisy["exponent"] - 1.5) < 2 * noisy["standard_error"] < 1


def test_what_is_too_long_or_too_large_is_not_measured():
    shape = {"n": 64_000, "d": 256, "budget": 100}
    assert "GB, over 6 GB" in scaling.reason_to_skip("facility_location resident", shape, None, 60, 6e9)
    before = {"n": 32_000, "d": 256, "budget": 100, "median_s": 20.0}
    assert "about 80 s a run" in scaling.reason_to_skip("facility_location tiled", shape, before, 60, 6e9)
    assert scaling.reason_to_skip("facility_location tiled", shape, before, 100, 6e9) is None
    assert scaling.reason_to_skip("random", shape, None, 60, 6e9) is None


def test_scaling_writes_points_and_exponents(results, monkeypatch):
    monkeypatch.setattr(
        scaling, "QUICK", scaling.Grid({"n": 64, "d": 4, "budget": 8}, {"n": (128, 256), "d": (), "budget": ()})
    )
    monkeypatch.setattr(scaling, "METHODS", {m: scaling.METHODS[m] for m in ("k_center", "random")})
    done = CliRunner().invoke(scaling.main, ["--quick", "--repeats", "1", "--name", "scaling-test"])
    assert done.exit_code == 0, done.output
    value = json.loads((results / "scaling-test.json").read_text())
    assert [r["n"] for r in value["rows"] if r["method"] == "k_center"] == [64, 128, 256]
    assert all(r["refreshes"] >= 1 and r["plan_flops"] for r in value["rows"] if r["method"] == "k_center")
    assert {(f["method"], f["axis"]) for f in value["fits"]} == {("k_center", "n"), ("random", "n")}
    assert "64 rows, 4 features, 8 picks" in render.scaling(render.read(results))


def test_roofline_writes_shares_of_what_the_device_gives(results, monkeypatch):
    monkeypatch.setattr(roofline, "settings", lambda quick: ((300, 8, 20), (64,), 1 << 16))
    monkeypatch.setattr(roofline, "WIDTHS", (16,))
    arguments = ["--methods", "k_center,facility_location resident", "--repeats", "1", "--name", "roofline-test"]
    done = CliRunner().invoke(roofline.main, arguments)
    assert done.exit_code == 0, done.output
    value = json.loads((results / "roofline-test.json").read_text())
    for row in value["rows"]:
        assert row["flops_s"] == pytest.approx(row["flops"] / row["median_s"])
        assert row["share_of_matmul"] * value["ceilings"]["matmul_flops_s"]["float32"]["best"] == pytest.approx(
            row["flops_s"]
        )
    assert [u["method"] for u in value["updates"]] == ["k_center", "d_optimal"]
    assert "facility_location resident 300 x 8, 20" in render.roofline(render.read(results))


# Rendering


def selected(**changes):
    """A results file of one job, as `selection` writes it."""

    def side(seconds):
        return {"first_call_s": 1 + seconds, "runs_s": [seconds] * 3, "median_s": seconds}

    row = {
        "job": "j",
        "method": "k_center",
        "n": 20_000,
        "d": 384,
        "budget": 1000,
        "bars": {"loop": 4.0, "torch": 15.0, "gone": 2.0},
        "ratios": {"loop": 4.5, "torch": 14.96},
        "agree": {"loop": {"same_set": 1000, "same_place": 998, "value": 1.5}},
        "edjax_value": 1.5,
        "timed": {"edjax": side(0.1), "loop": side(0.45), "torch": side(1.496)},
        "skipped": {"gone": "not installed"},
        **changes,
    }
    on = {"backend": "cpu", "device": "cpu", "cpu": "a CPU", "cores": 2, "load_before": [0, 0, 0]}
    facts = {"commit": "abc1234", "date": "2026-01-02", "machine": on, "versions": {"jax": "1"}}
    return {"selection-cpu": {**facts, "rows": [row, {"job": "of an older shape", "ratio": 2.0}]}}


def test_a_missed_bar_is_said_plainly():
    short = render.selection(selected())
    assert "| 100 ms | loop 450 ms | 4.50x |" in short
    assert "**missed: torch 15.0x for 15x**; 1 met; 1 not measured" in short
    full = render.selection_all(selected())
    assert "4x: met" in full and "**15x: missed**" in full and "gone left out: not installed" in full
    assert "1,000 of 1,000 | 998 | 1.5 | 1.5" in render.agreement(selected())


def test_a_memory_bar_is_an_upper_one_and_other_versions_are_named():
    assert "1 met" in render.selection(selected(bars={"peak_rss_bytes": 3e9}, peak_rss_bytes=2.5e9))
    over = selected(bars={"peak_rss_bytes": 3e9}, peak_rss_bytes=3.5e9)
    assert "**missed: 3.50 GB for 3 GB**" in render.selection(over)
    assert "**3 GB at most: missed**" in render.selection_all(over)
    assert "Some rows with other versions (jax 0.9)" in render.selection(selected(versions={"jax": "0.9"}))
    alone = selected(bars={}, ratios={}, agree={}, peak_rss_bytes=2.5e9)
    assert "| 2.50 GB peak | none set |" in render.selection(alone)


def test_the_language_model_beside_torch():
    def side(median, **more):
        return {"median_s": median, "cpu_s": 2 * median, "tokens_per_s": 1234.5, **more}

    memory = {"memory": {"peak_rss_bytes": 1.5e9}}
    shape = {"rows": 8, "tokens": 64, "new": 32, "model": "tiny"}
    decode = shape | {
        "job": "d",
        "kind": "ids",
        "timed": {"edjax": side(2.0, **memory), "torch": side(1.0)},
        "agree": {"places": 256, "same_places": 255},
    }
    lora = shape | {
        "job": "l",
        "kind": "lora",
        "timed": {"edjax": side(1.0), "edjax, slowly": side(3.0), "torch, slowly": side(6.0)},
        "agree": {"worst_loss_difference": 4.2e-6, "steps": 6},
    }
    text = render.lm({"lm": selected()["selection-cpu"] | {"rows": [decode, lora]}})
    assert "| decoding 32 tokens after 8 x 64, tiny | 2.00 s | 1.00 s | 0.50x | 0.50x | 1,234 | 1.50 GB |  |" in text
    assert "255 of 256 tokens the same" in text
    assert "| a LoRA step on 8 x 64, tiny | 1.00 s |  |  |  |" in text and "4e-06 in the losses of 6 steps" in text
    assert "| a LoRA step on 8 x 64, slowly, tiny | 3.00 s | 6.00 s | 2.00x |" in text
    assert render.lm({}) == render.EMPTY


def test_pages_are_rendered_between_their_markers():
    page = "before\n<!-- bench:selection -->\nold\n<!-- /bench -->\nafter\n"
    new = render.rendered(page, selected())
    assert new.startswith("before\n<!-- bench:selection -->\n") and new.endswith("\n<!-- /bench -->\nafter\n")
    assert "old" not in new and render.rendered(new, selected()) == new
    assert render.EMPTY in render.rendered(page, {})
    with pytest.raises(KeyError, match="nonsense"):
        render.rendered(page.replace("selection", "nonsense"), {})


def test_the_tables_are_what_the_results_give():
    """`python -m benchmarks.pages.render --check`."""
    assert render.stale(ROOT, render.read()) == [], "run python -m benchmarks.pages.render"
    for page in render.PAGES:
        assert render.MARKED.search((ROOT / page).read_text())


def test_every_figure_shown_is_there():
    shown = [line for line in render.figures(render.read()).splitlines() if line.startswith("![")]
    for line in shown:
        drawn = ROOT / "docs" / line.split("(")[1].rstrip(")")
        assert drawn.exists(), f"{line}: run python -m benchmarks.pages.render"


def test_numbers_keep_three_digits():
    assert [render.seconds(v) for v in (0.00123, 0.0999, 1.234, 12.34, 1234.0)] == [
        "1.23 ms",
        "99.9 ms",
        "1.23 s",
        "12.3 s",
        "1,234 s",
    ]
    assert render.times(3.98) == "3.98x"
