"""A quarter of an hour on an accelerator that is lent without a network, used to the last second.

    python -m benchmarks.accelerator pack       # here: what that machine lacks, in parts, and the calls to make
    python -m benchmarks.accelerator go         # there: the stages in order until the time is up
    python -m benchmarks.accelerator collect    # here: what came back, into benchmarks/results

pack.py, wheels.py    what travels
go.py                 the stages one after the other, each a process of its own, until a deadline
stage.py, record.py   what a stage works with, and the rows it leaves as soon as it has them
check.py, selectors.py, model.py, score.py, select.py, cells.py, trials.py    the stages, the most valuable first
together.py           many cells trained and evaluated at once
drawn.py, loops.py    models drawn on the device, and the loops that people write, in torch
kept.py               a scored pool's features, small enough to bring back
sizes.py              how large everything is, and how small on a dry walk
collect.py            results files
"""
