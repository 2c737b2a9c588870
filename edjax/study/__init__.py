"""A whole comparison: strategies x budgets x seeds over one scored pool, and what it was worth.

recipe.py       the YAML file that says what is done; sections.py: its sections
run.py          score once, then select, finetune and evaluate every cell
growth.py       what a recipe may add to a run that is done
beforehand.py   what a run refuses before the first minute of work
warm.py         labelled rows that every cell is trained on
gather.py       the same page for what the verbs wrote one by one
portrait.py     what was chosen: picks, coverage, a map of the pool
analysis/       savings, their nulls and intervals
report/         the page
table.py        the outcome on a terminal
"""
