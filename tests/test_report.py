"""The page: what is shown, what is left out, what is escaped, and what a browser makes of it."""

from __future__ import annotations

import base64
import copy
import doctest
import hashlib
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edjax.charts import charts, svg, words
from edjax.keep.errors import EnvError
from edjax.selection.strategies import STRATEGIES
from edjax.study.analysis import STATISTIC
from edjax.study.report import picked, render, view, write
from edjax.study.report.pool_map import pool_map

BUDGETS = (64, 128, 256, 512)
LOSSES = {
    "random": (2.10, 1.98, 1.88, 1.80),
    "k_center": (2.02, 1.90, 1.815, 1.765),
    "facility_location": (2.05, 1.86, 1.78, 1.74),
}


def sample() -> dict[str, Any]:
    """A run of three strategies, four budgets and two seeds, with numbers like those of a real one."""
    rng = np.random.default_rng(0)
    names = ("arithmetic", "dates", "units", "sorting", "string edits", "comparisons", "sentiment", "simple facts")
    groups = rng.choice(len(names), 900, p=[0.35, 0.2, 0.15, 0.1, 0.08, 0.06, 0.04, 0.02])
    centres = rng.normal(0, 3, (len(names), 2))
    points = np.round(centres[groups] + rng.normal(0, 0.9, (900, 2)), 3)
    cells, curves, selections = [], {}, []
    for strategy, losses in LOSSES.items():
        curve = []
        for i, (budget, loss) in enumerate(zip(BUDGETS, losses, strict=True)):
            both = [loss - 0.01, loss + 0.01]
            for seed, value in enumerate(both):
                scores = {
                    "response_loss": value,
                    "exact_match": 0.05 + 0.09 * i + 0.01 * seed,
                    "rouge_l": 0.2 + 0.08 * i,
                    "choice_accuracy": 0.41 + 0.04 * i,
                }
                seconds = {"finetune": 4.1 * budget / 64, "evaluate": 6.5}
                tokens = 19 * budget + seed
                cells.append(
                    {
                        "strategy": strategy,
                        "budget": budget,
                        "seed": seed,
                        "scores": scores,
                        "response_tokens": tokens,
                        "seconds": seconds,
                    }
                )
            curve.append({"budget": budget, "mean": loss, "low": loss - 0.022, "high": loss + 0.024, "n": 2})
        curves[strategy] = curve
        gains = None
        if strategy == "k_center":
            gains = [2.0, *np.round(1.4 * np.arange(2, 513) ** -0.25, 5).tolist()]
        if strategy == "facility_location":
            gains = [410.0, *np.round(60 * np.arange(2, 513) ** -0.9, 5).tolist()]
        prompts = [
            {
                "id": f"p{j:05d}",
                "text": f"Convert {17 * j + 3} kilometres to miles. Round to one decimal.",
                "task": "units",
            }
            for j in range(12)
        ]
        selections.append(
            {
                "strategy": strategy,
                "seed": 0,
                "seconds": {"random": 0.002, "k_center": 0.41, "facility_location": 0.62}[strategy],
                "gains": gains,
                "ids": [f"p{j:05d}" for j in range(512)],
                "first": prompts[:8],
                "last": prompts[8:],
                "tasks_covered": {"random": 31, "k_center": 44, "facility_location": 40}[strategy],
                "tasks_total": 44,
                "mean_prompt_tokens": 25.14,
                "warning": "the last 100 picks add under 1 % of the gains" if strategy == "facility_location" else None,
            }
        )
    return {
        "title": "Demo pool, SmolLM2",
        "verdict": "facility_location needed about 213 labels for what 512 random labels reach: 58 % fewer.",
        "created": "2026-11-23T09:50:00+00:00",
        "command": "edjax run recipes/demo.yaml --out runs/demo",
        "metric": {
            "name": "response_loss",
            "higher_is_better": False,
            "interval": "95 %, Student's t over seeds",
            "statistic": STATISTIC,
        },
        "model": "smollm2",
        "pool": {"source": "demo pool, seed 0", "rows": 3000, "digest": "ab" * 32},
        "evaluation": {"source": "demo evaluation, seed 1", "rows": 400, "digest": "cd" * 32},
        "versions": {"edjax": "0.1.0", "jax": "0.10.2"},
        "hashes": {"features": "ef" * 32},
        "recipe": {"strategies": list(LOSSES), "budgets": list(BUDGETS), "learning_rate": 2e-4},
        "base": {
            "scores": {"response_loss": 2.31, "exact_match": 0.02, "rouge_l": 0.1, "choice_accuracy": 0.4},
            "seconds": 12.0,
        },
        "cells": cells,
        "curves": curves,
        "savings": [
            {"strategy": "k_center", "budget_needed": 313.0, "share_saved": 0.39, "note": "no interval below 3 seeds"},
            {
                "strategy": "facility_location",
                "budget_needed": 213.4,
                "share_saved": 0.583,
                "low": 0.41,
                "high": 0.66,
                "seeds": 5,
                "baseline_seeds": 10,
                "null": {"low": -0.21, "high": 0.18, "splits": 252, "seeds": 10},
                "note": "random turns: level where it does",
            },
        ],
        "differences": [
            {"strategy": s, "budget": b, "mean": m - r, "low": m - r - 0.045, "high": m - r + 0.045}
            for s in ("k_center", "facility_location")
            for b, m, r in zip(BUDGETS, LOSSES[s], LOSSES["random"], strict=True)
        ],
        "selections": selections,
        "overlap": {"strategies": list(LOSSES), "matrix": [[1.0, 0.09, 0.11], [0.09, 1.0, 0.32], [0.11, 0.32, 1.0]]},
        "map": {
            "points": points.tolist(),
            "groups": groups.tolist(),
            "group_names": list(names),
            "picks": {s: rng.choice(900, 120, replace=False).tolist() for s in LOSSES},
            "total": 3000,
        },
        "stages": [
            {"name": "score", "seconds": 61.2},
            {"name": "select", "seconds": 1.03},
            {"name": "finetune", "seconds": 369.0},
            {"name": "evaluate", "seconds": 156.0},
        ],
        "overhead": {"select_share_of_finetune": 0.0028, "score_and_select_share": 0.169},
    }


class Page(HTMLParser):
    """What a page holds: its tags, ids, attributes that could load something, and text by element."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.style = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        for key, value in attrs:
            self.attributes.add(key)
            if key == "id":
                self.ids.append(value or "")
            if key in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data


def test_every_section_of_a_full_run_is_there_and_linked() -> None:
    page = Page(render(sample()))
    sections = {"curve", "savings", "cells", "gains", "map", "picks", "overlap", "coverage", "time", "provenance"}
    assert sections <= set(page.ids)
    assert {f"#{s}" for s in sections} <= set(page.links)
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("h1") == 1 and page.tags.count("h2") == len(sections)


def test_nothing_is_loaded_and_nothing_runs() -> None:
    text = render(sample())
    page = Page(text)
    assert "http://" not in text and "https://" not in text
    assert all(link.startswith("#") or link == "data:," for link in page.links)
    assert "script" not in page.tags and "style" not in page.attributes
    assert not any(a.startswith("on") for a in page.attributes)
    assert "url(" not in page.style and "@import" not in page.style and "@font-face" not in page.style
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy and "default-src 'none'" in policy[1] and f"style-src 'sha256-{digest}'" in policy[1]


HOSTILE = """"><script>alert(1)</script></style></title><img src=x onerror=alert(1)>{{ 7*7 }}{% raw %}&amp;'"""


def test_whatever_a_prompt_or_a_name_holds_is_text() -> None:
    """RELIABILITY I9."""

    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                poison(k) if k in ("k_center", "features", "jax", "rouge_l") else k: poison(v) for k, v in value.items()
            }
        if isinstance(value, list):
            return [poison(v) for v in value]
        return value + HOSTILE if isinstance(value, str) and value not in ("random", "response_loss") else value

    hostile = render(poison(sample()))
    clean, page = Page(render(sample())), Page(hostile)
    assert set(page.tags) | {"dd"} == set(clean.tags) | {"dd"}
    assert page.attributes == clean.attributes and set(page.links) == set(clean.links)
    assert "&lt;script&gt;" in hostile and "<script" not in hostile and "{{ 7*7 }}" in hostile


def test_control_characters_and_lone_surrogates_do_not_reach_the_file(tmp_path: Path) -> None:
    results = sample()
    results["selections"][0]["first"][0]["text"] = "a\x00b\x1b[31m\ud800c \U0001f600"
    out = write(results, tmp_path / "report.html").read_bytes().decode("utf-8")
    assert "a\ufffdb\ufffd[31m\ufffdc \U0001f600" in out


@pytest.mark.parametrize("empty", [None, "absent", "empty"])
@pytest.mark.parametrize("key", sorted(sample()))
def test_any_part_may_be_missing(key: str, empty: str | None) -> None:
    results = sample()
    if empty == "absent":
        del results[key]
    else:
        results[key] = None if empty is None else type(results[key])()
    text = render(results)
    section = {"map": "map", "overlap": "overlap", "stages": "time"}.get(key)
    if key == "stages":
        assert "Selecting took" in text  # the words remain
    elif section:
        assert f'id="{section}"' not in text and f'href="#{section}"' not in text
    assert not re.search(r"\b(nan|None|Undefined)\b", text.split("<main", 1)[1])


def test_an_empty_run_says_so() -> None:
    text = render({})
    assert "No verdict" in text and "no curve" in text
    assert Page(text).ids.count("savings") == 0


def test_broken_numbers_become_dashes_or_are_left_out() -> None:
    def breaks(value: Any, bad: Any) -> Any:
        if isinstance(value, dict):
            return {k: breaks(v, bad) for k, v in value.items()}
        if isinstance(value, list):
            return [breaks(v, bad) for v in value]
        return bad if isinstance(value, float) else value

    for bad in (None, math.nan, math.inf, -math.inf, "x"):
        text = render(breaks(sample(), bad)).split("<main", 1)[1].split('id="provenance"')[0]
        assert not re.search(r"\b(nan|inf|None)\b", text, re.IGNORECASE), bad


def test_rows_that_the_model_did_not_see_as_written_are_named() -> None:
    results = sample()
    assert "were cut" not in render(results)
    results["pool"] |= {"rows": 96000, "cut": {"rows": 1200, "first": ["a<b", "b"]}, "spelt": {"rows": 0, "first": []}}
    results["evaluation"] = {"rows": 300, "spelt": {"rows": 1, "first": ["e-7"]}}
    text = render(results)
    assert "Pool: 1,200 of 96,000 rows were cut to max_length or the model&#39;s window: a&lt;b, b, …</li>" in text
    assert "Evaluation: 1 of 300 rows hold control tokens of the model, which were read as text: e-7." in text
    assert text.count("<li>Pool:") == 1


def test_one_bad_point_does_not_take_the_curve_along() -> None:
    results = sample()
    results["curves"]["k_center"][1].update(mean=math.nan, low=None, high=None)
    results["curves"]["d_optimal"] = []
    results["curves"]["mean_nll"] = None
    text = render(results)
    assert "k_center, 64 labels: 2.020" in text and "k_center, 128 labels" not in text


def test_the_result_is_not_changed() -> None:
    results = sample()
    before = copy.deepcopy(results)
    render(results)
    assert results == before
    assert render(json.loads(json.dumps(results))) == render(results)


# The words


@pytest.mark.parametrize("module", [words, svg])
def test_examples_in_the_docstrings(module: Any) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0 and found.failed == 0


def test_numbers_as_read() -> None:
    assert [words.number(v) for v in (0, 2.3149, 0.04166, 1234.4, 99999, -0.5, 1e-7, 10**400, True, None)] == [
        "0", "2.31", "0.0417", "1,234", "99,999", "−0.500", "1.00e-07", "–", "–", "–",
    ]  # fmt: skip
    assert words.number(2.0, 4, whole=False) == "2.000"
    assert [words.percent(v) for v in (0, 0.0004, 0.0321, 0.47, 1, -0.25)] == [
        "0 %", "under 0.1 %", "3.2 %", "47 %", "100 %", "−25 %",
    ]  # fmt: skip
    assert [words.duration(v) for v in (0, 0.002, 0.41, 12.4, 61.2, 3599.7, 7500, -1, math.nan)] == [
        "0 s", "2 ms", "0.41 s", "12 s", "1 min 01 s", "1 h 00 min", "2 h 05 min", "–", "–",
    ]  # fmt: skip


def test_the_metric_decides_the_format_and_the_direction() -> None:
    assert words.metric_words("exact_match").format(0.415) == "41.5 %"
    assert words.metric_words("response_loss").format(1.8) == "1.800"
    assert words.metric_words("response_loss").difference(-0.04) == "−0.040"
    assert words.metric_words("exact_match").difference(0.015) == "+1.5 points"
    assert words.metric_words("response_loss").difference(-1e-9) == "0.000"
    assert words.metric_words("bleu_score") == ("bleu score", False, True)
    assert words.metric_words("perplexity", False).higher_is_better is False


# The charts


def test_coordinates_of_a_simple_curve() -> None:
    curves = {"k_center": [{"budget": 20, "mean": 3.0}, {"budget": 10, "mean": 1.0}, {"budget": 30, "mean": 2.0}]}
    chart = charts.efficiency(curves, svg.styles(["k_center"]), words.metric_words("bleu"), width=charts.NARROW)
    left, right = charts.LEFT + 12, charts.NARROW - charts.RIGHT - 8
    top, bottom = charts.TOP, 320 - charts.BOTTOM
    pad = (bottom - top) * 0.12 / 2.24  # the axis runs from 1 - 0.12 to 3 + 0.12
    expected = [(left, bottom - pad), ((left + right) / 2, top + pad), (right, (top + bottom) / 2)]
    assert f'd="{svg.line(expected)}" class="line"' in str(chart)


def test_budgets_far_apart_get_a_logarithmic_axis() -> None:
    x = svg.Scale(10, 1000, 0, 100, log=True)
    assert [round(x(v), 6) for v in (10, 100, 1000)] == [0, 50, 100]
    assert svg.Scale(5, 5, 0, 100)(5) == 50
    assert "logarithmic" in render(sample())
    results = sample()
    results["curves"] = {s: c[:2] for s, c in results["curves"].items()}
    assert "logarithmic" not in render(results)


def test_the_base_model_is_a_line_or_a_sentence() -> None:
    assert "before finetuning: 2.310" in render(sample())
    results = sample()
    results["base"]["scores"]["response_loss"] = 9.0
    assert "the model scores 9.000, outside this picture" in render(results)


def test_ticks_are_round_and_inside() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        low = float(rng.normal()) * 10.0 ** int(rng.integers(-3, 4))
        high = low + float(rng.uniform(0.1, 3)) * 10.0 ** int(rng.integers(-3, 4))
        found = svg.ticks(low, high, 6)
        assert 2 <= len(found) <= 13
        assert all(low - 1e-6 * (high - low) <= t <= high + 1e-6 * (high - low) for t in found)


def test_labels_do_not_overlap_and_stay_inside() -> None:
    rng = np.random.default_rng(2)
    for n in (1, 2, 5, 12):
        for _ in range(50):
            wanted = rng.uniform(0, 400, n).tolist()
            places = svg.spread(wanted, 16, 10, 390)
            gaps = np.diff(sorted(places))
            assert n == 1 or gaps.min() >= 16 - 1e-9
            assert min(places) >= 10 - 1e-9 and max(places) <= 390 + 1e-9
            assert np.argsort(places).tolist() == np.argsort(wanted).tolist()


def test_every_strategy_looks_different_without_its_colour() -> None:
    names = ["random", *(f"s{i}" for i in range(24))]
    looks = svg.styles(names)
    assert len(set(looks.values())) == len(names)
    assert len({(s.marker, s.dash) for n, s in looks.items()}) == len(names)
    assert looks["random"].colour == "c-base"


def test_gains_are_relative_to_the_largest_after_the_first() -> None:
    assert picked.relative_gains([100.0, 4.0, 2.0, 0.0]) == [1.0, 0.5, 0.0]
    assert picked.relative_gains([math.inf, 4.0]) == [1.0]
    for no_gains in (None, [], [1.0], [1.0, -2.0, 3.0], [1.0, math.nan], [1.0, 0.0]):
        assert picked.relative_gains(no_gains) is None
    assert "adds almost nothing after pick 333 of 512" in render(sample())


def test_the_map_shows_each_point_once_and_each_strategy_as_a_layer() -> None:
    data = {
        "points": [[0, 0], [2, 1], [math.nan, 0]],
        "groups": [0, 1, 1],
        "group_names": ["a"],
        "picks": {"x": [1, 2, 9], "y": []},
    }
    drawn = pool_map(data, ["y"])
    assert drawn is not None and drawn.shown == 2
    assert drawn.strategies == ["y", "x"] and drawn.counts == [0, 1]
    assert [(name, n) for _, name, n in drawn.legend] == [("a", 1), ("group 1", 1)]
    assert pool_map({"points": []}) is None and pool_map(None) is None
    assert pool_map({"points": [[1, 1]]}) is not None  # one point, no groups, no picks


def test_many_groups_share_the_grey() -> None:
    groups = list(range(40)) + [7] * 5
    drawn = pool_map(
        {"points": [[i, i % 3] for i in range(45)], "groups": groups, "group_names": [str(i) for i in range(40)]}
    )
    assert drawn is not None and drawn.legend[0][1:] == ("7", 6) and drawn.legend[-1][1:] == ("35 more", 35)


# What is claimed


def test_how_sure_counts_intervals() -> None:
    text = render(sample())
    assert "Measured with 2 seeds on 400 evaluation rows." in text
    assert "facility_location beats random beyond the interval of their difference at 4 of 4 budgets." in text
    results = sample()
    results["differences"] = None
    assert "intervals that do not touch, in favour of facility_location, at 4 of 4 budgets" in render(results)
    for curve in results["curves"].values():
        for point in curve:
            point.update(low=None, high=None)
    assert "how sure its lead is cannot be said" in render(results)
    results["cells"] = [c for c in results["cells"] if c["seed"] == 0]
    assert "One seed is a lead, not a result." in render(results)


def test_seeds_are_counted_a_strategy() -> None:
    results = sample()
    results["cells"] = [c for c in results["cells"] if c["strategy"] == "random" or c["seed"] == 0]
    text = render(results)
    assert "Measured with 1 to 2 seeds a strategy" in text and "One seed is a lead" in text


def test_beside_every_saving_stand_its_interval_its_seeds_and_the_null() -> None:
    rows = {r["strategy"]: r for r in (view.view(sample())["savings"] or {})["rows"]}
    assert rows["facility_location"]["labels"] == {
        "saved": "58 %",
        "interval": "41 to 66 %",
        "null": "null \u221221 to 18 %",
    }
    assert rows["facility_location"]["seeds"] == "5 seeds against 10"
    assert rows["k_center"]["labels"]["interval"] == "no interval"
    assert rows["k_center"]["labels"]["null"] == "null not known"
    tile = view.view(sample())["tiles"][0]
    assert tile[:2] == ("58 %", "fewer labels than random")
    assert "41 to 66 %; 5 seeds against 10; random against itself \u221221 to 18 %" in tile[2]


def test_what_random_reaches_against_itself_is_a_lead_in_large_type_too() -> None:
    results = sample()
    (entry,) = (s for s in results["savings"] if s["strategy"] == "facility_location")
    before = view.view(results)
    entry["null"] = entry["null"] | {"high": 0.9}
    after = view.view(results)
    assert after["tiles"][0][1].endswith("a lead, random reaches as much against itself")
    assert len(after["tiles"]) == len(before["tiles"]) - 1, "nor how many labels do what more random ones do"
    assert after["curve"]["wide"] != before["curve"]["wide"], "nor the arrow"


def test_who_saves_more_than_can_be_measured_has_a_tile() -> None:
    results = sample()
    far = {"share_saved": None, "low": None, "high": None, "reason": "beyond", "note": "saves more than 65 %"}
    results["savings"] = [s | far if s["strategy"] == "facility_location" else s for s in results["savings"]]
    tiles = view.view(results)["tiles"]
    assert tiles[0] == ("facility_location", "saves more than random's budgets measure", "saves more than 65 %")
    assert not any(figure.startswith("0 of") for figure, *_ in tiles)


@pytest.mark.parametrize("ends", [(-0.1, 0.7), (None, 0.7), (None, None)])
def test_nothing_is_claimed_where_no_interval_lies_above_zero(ends: tuple[float | None, float | None]) -> None:
    results = sample()
    results["savings"][1]["low"], results["savings"][1]["high"] = ends
    figure, what, small = view.view(results)["tiles"][0]
    assert (figure, what) == ("0 of 2", "strategies were shown to save labels")
    assert small.startswith("nearest 58 %: facility_location")
    text = render(results)
    assert "fewer labels than random" not in text and "random ones do" not in text and "≈ 213" not in text
    assert "≈ 213" in render(sample())


def test_a_strategy_that_needs_more_or_of_which_nothing_can_be_said() -> None:
    results = sample()
    results["savings"] = [
        {"strategy": "k_center", "budget_needed": None, "share_saved": None, "note": "takes over 11 times as many"},
        {"strategy": "facility_location", "budget_needed": 640.0, "share_saved": -0.25, "high": -0.1, "note": ""},
    ]
    text = render(results)
    assert "not said" in text and "takes over 11 times" in text and "<strong>−25 %</strong>" in text
    assert "up to −10 %" in text and "fewer labels than random" not in text
    results["savings"].pop()
    assert "Of no strategy a saving can be said." in render(results)


def test_savings_in_response_tokens_have_a_column_where_they_are_known() -> None:
    results = sample()
    assert "Response tokens saved" not in render(results)
    results["token_savings"] = [
        {"strategy": "k_center", "budget_needed": 900.0, "share_saved": 0.27, "note": ""},
        {"strategy": "facility_location", "budget_needed": 1900.0, "share_saved": -0.5, "note": ""},
    ]
    rows = {r["strategy"]: r["tokens"]["saved"] for r in view.view(results)["savings"]["rows"]}
    assert rows == {"k_center": "27 %", "facility_location": "−50 %"}
    assert "Response tokens saved" in render(results)


def test_a_mean_over_groups_is_named_and_the_mean_over_rows_stands_beside() -> None:
    results = sample()
    results["metric"] |= {"group_by": "task", "groups": 8}
    for scored in (results["base"], *results["cells"]):
        scored["macro"] = {"response_loss": scored["scores"]["response_loss"] + 1}
    results["by_rows"] = {"savings": [{"strategy": "k_center", "share_saved": 0.11, "low": -0.1, "high": 0.3}]}
    shown = view.view(results)
    assert [m[0] for m in shown["cells"]["metrics"][:2]] == ["response loss, mean over task", "response loss"]
    assert shown["cells"]["base"][:2] == ["3.310", "2.310"] and shown["curve"]["base"] == "3.310"
    assert shown["savings"]["rows"][1]["by_rows"]["saved"] == "11 %"
    text = render(results)
    assert "By the mean over rows" in text and "The 8 values of task count alike" in text


def test_savings_of_an_earlier_version_are_not_shown_as_they_are() -> None:
    """Worked out anew from the cells; where these lack something, left out with a sentence."""
    results = sample()
    del results["metric"]["statistic"]
    text = render(results)
    assert "58 %" not in text and "worked out anew from its cells" in text
    assert "A lead, not a result, by the curves of response loss alone: facility_location" in text
    del results["cells"][0]["scores"]
    text = render(results)
    assert "Written by an earlier version of edjax" in text and 'id="savings"' not in text


def test_a_strategy_is_said_in_the_words_of_its_method() -> None:
    assert STRATEGIES["facility_location"].summary in render(sample())


def test_the_best_score_of_a_budget_is_marked_in_the_right_direction() -> None:
    results = sample()
    table = view.view(results)["cells"]
    assert [r["strategy"] for r in table["rows"] if r["best"]] == ["k_center", *["facility_location"] * 3]
    results["metric"]["higher_is_better"] = True
    table = view.view(results)["cells"]
    assert {r["strategy"] for r in table["rows"] if r["best"]} == {"random"}


def test_write_is_whole_or_not_at_all(tmp_path: Path) -> None:
    out = write(sample(), tmp_path / "deep" / "report.html")
    assert out.read_text("utf-8") == render(sample())
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(EnvError):
        write(sample(), blocked / "report.html")


# A browser


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


ERRANDS = (".google.com", ".googleapis.com", ".gvt1.com")  # a browser's own, blocked here; no page of ours asks them


def browse(page: Path) -> tuple[str, str, set[str]]:
    """Load a page in headless Chromium, off the network: the finished document, the console, the hosts asked for."""
    log = page.with_suffix(".net.json")
    quiet = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    quiet += " --disable-component-update --disable-sync --enable-logging=stderr --dump-dom"
    offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    folders = [f"--user-data-dir={page.parent / 'profile'}", f"--log-net-log={log}"]
    command = [str(CHROMIUM), *quiet.split(), offline, *folders, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    hosts = set(re.findall(r'"url":"(?:https?|wss?)://([^/":]+)', log.read_text("utf-8", "replace")))
    return done.stdout, console, {h for h in hosts if not h.endswith(ERRANDS)}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_the_page_without_a_complaint_or_a_request(tmp_path: Path) -> None:
    results = sample()
    results["selections"][0]["first"][0]["text"] = HOSTILE
    shown, console, hosts = browse(write(results, tmp_path / "report.html"))
    assert "What the labels bought" in shown
    assert console == "" and hosts == set()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_browser_check_would_see_a_complaint_and_a_request(tmp_path: Path) -> None:
    page = write(sample(), tmp_path / "report.html")
    text = page.read_text("utf-8").replace("</main>", "<script>1</script><img src='http://127.0.0.1:9/x'></main>")
    page.write_text(text, "utf-8")
    _, console, hosts = browse(page)
    assert "Content Security Policy" in console and hosts == set()  # the policy stops both
    page.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text), "utf-8")
    assert browse(page)[2] == {"127.0.0.1"}
