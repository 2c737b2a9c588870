"""E0, the control: do the selectors save labels for a learner that is fixed and has a closed form?

sets.py        rows of the pool, and their embeddings
splits.py      which rows are held out, and what a learning curve saves against random's
learners.py    ridge regression from prompts to labels, to the choice that is right, to a written answer
__main__.py    all splits of all sets: benchmarks/results/control.json
table.py       what docs/evidence.md shows of it
"""
