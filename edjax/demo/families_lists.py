"""Lists of numbers and words: sort, pick, count, continue, and read simple formats."""

from __future__ import annotations

from random import Random

from edjax.demo.families import Item, either, family
from edjax.demo.words import KINDS, NAMES, NOUNS


def _numbers(rng: Random, low: int, high: int) -> list[int]:
    return rng.sample(range(1, 100), rng.randrange(low, high))


def _show(values: list[int] | list[str]) -> str:
    return ", ".join(str(v) for v in values)


@family(
    "Sort these numbers from smallest to largest: {xs}",
    "Put the numbers {xs} in ascending order.",
    "Arrange in increasing order: {xs}",
)
def sort_up(rng: Random) -> Item:
    xs = _numbers(rng, 3, 5)
    return Item({"xs": _show(xs)}, _show(sorted(xs)))


@family(
    "What is the largest number in this list: {xs}?",
    "Find the maximum of {xs}.",
    "Here are some numbers: {xs}. Which one is the biggest?",
)
def maximum(rng: Random) -> Item:
    xs = _numbers(rng, 4, 7)
    return Item({"xs": _show(xs)}, str(max(xs)))


@family(
    "What number comes next: {xs}, ...?",
    "Continue the sequence with one number: {xs}",
    "Find the next term of the sequence {xs}.",
)
def next_term(rng: Random) -> Item:
    start, step = rng.randrange(1, 40), rng.randrange(2, 12)
    return Item({"xs": _show([start + step * i for i in range(4)])}, str(start + 4 * step))


@family(
    "Which number is missing: {xs}?",
    "Fill in the blank of this sequence: {xs}",
    "The sequence {xs} has one gap. Write the number that belongs there.",
)
def missing_term(rng: Random) -> Item:
    start, step, gap = rng.randrange(1, 40), rng.randrange(2, 12), rng.randrange(1, 4)
    xs = [str(start + step * i) for i in range(5)]
    answer, xs[gap] = xs[gap], "_"
    return Item({"xs": _show(xs)}, answer)


@family(
    "Put these words in alphabetical order: {xs}",
    "Sort the words {xs} alphabetically.",
    "Arrange from A to Z: {xs}",
)
def sort_words(rng: Random) -> Item:
    xs = rng.sample(NOUNS, rng.randrange(3, 5))
    return Item({"xs": _show(xs)}, _show(sorted(xs)))


@family(
    "Which of these words comes first in the alphabet: {xs}?",
    "Which word would a dictionary list first: {xs}?",
    "Of the words {xs}, write the one that is first alphabetically.",
)
def first_word(rng: Random) -> Item:
    xs = rng.sample(NOUNS, 3)
    return Item({"xs": _show(xs)}, min(xs), tuple(xs))


@family(
    'Is "{x}" in the list {xs}? Answer yes or no.',
    'Yes or no: the list {xs} contains "{x}".',
    'Here is a set of words: {xs}. Does "{x}" belong to it? Answer yes or no.',
)
def membership(rng: Random) -> Item:
    *xs, other = rng.sample(NOUNS, rng.randrange(4, 7))
    want = rng.random() < 0.5
    return either(rng, want, {"x": rng.choice(xs) if want else other, "xs": _show(xs)})


@family(
    "Which word does not belong with the others: {xs}?",
    "Find the odd one out: {xs}",
    "Three of these words are of one kind and one is not: {xs}. Which one is different?",
)
def odd_one_out(rng: Random) -> Item:
    many, one = rng.sample(sorted(KINDS), 2)
    odd = rng.choice(KINDS[one])
    xs = [*rng.sample(KINDS[many], 3), odd]
    rng.shuffle(xs)
    return Item({"xs": _show(xs)}, odd, tuple(xs))


@family(
    'Write the CSV row "{row}" as a JSON list of strings.',
    "Turn the comma-separated values {row} into a JSON list of strings.",
    "Convert {row} from CSV to a JSON array of strings.",
)
def csv_to_list(rng: Random) -> Item:
    xs = rng.sample(NOUNS, 2)
    quoted = [f'"{x}"' for x in xs]
    return Item({"row": ",".join(xs)}, f"[{', '.join(quoted)}]", also=(f"[{','.join(quoted)}]",))


@family(
    "In the JSON object {obj}, what is the value of {key}?",
    'Here is a record: {obj}. Write the value stored under "{key}".',
    'Look up "{key}" in {obj}. Give only the value.',
)
def json_lookup(rng: Random) -> Item:
    values = {"name": rng.choice(NAMES), "age": str(rng.randrange(18, 80)), "pet": rng.choice(KINDS["animal"])}
    values |= {"drink": rng.choice(("tea", "milk", "juice", "water", "cocoa"))}
    keys = rng.sample(sorted(values), 3)
    shown = [f'"{k}": {values[k]}' if k == "age" else f'"{k}": "{values[k]}"' for k in keys]
    key = rng.choice(keys)
    return Item({"obj": "{" + ", ".join(shown) + "}", "key": key}, values[key])
