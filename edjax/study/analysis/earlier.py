"""results.json of earlier versions, whose savings came from another statistic: worked out anew from its cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edjax.study.analysis.cells import Score, compare
from edjax.study.analysis.savings import STATISTIC
from edjax.study.analysis.seeds import INTERVAL
from edjax.study.analysis.verdict import verdict

COMPUTED = ("curves", "differences", "savings", "token_savings")


def restated(results: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same results with curves, differences, savings and verdict by the statistic of today, and "restated" true;
    as they are where they hold none or have it already. What cannot be worked out anew is left out."""
    metric = results.get("metric") or {}
    if metric.get("statistic") == STATISTIC or not any(results.get(k) for k in COMPUTED):
        return results
    kept = {k: v for k, v in results.items() if k not in COMPUTED}
    said = "Written by an earlier version of edjax, whose savings flattered, and its cells do not give them anew."
    name, higher = metric.get("name"), bool(metric.get("higher_is_better"))
    try:
        base = float(results["base"]["scores"][name])
        scores = [
            Score(c["strategy"], int(c["budget"]), int(c["seed"]), float(c["scores"][name]), c.get("response_tokens"))
            for c in results["cells"]
        ]
        if scores and np.isfinite(base) and all(np.isfinite(s.value) for s in scores):
            found = compare(scores, base, higher_is_better=higher)
            said = verdict(found, str(name), higher)
            kept |= found | {"metric": dict(metric) | {"interval": INTERVAL, "statistic": STATISTIC}}
    except (KeyError, TypeError, ValueError):
        pass
    return kept | {"verdict": said, "restated": True}
