"""Arithmetic: sums to word problems, and the ways numbers are written."""

from __future__ import annotations

from random import Random

from edjax.demo.families import Item, either, family
from edjax.demo.words import NAMES, words

ONES = words(
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen"""
)
TENS = words("twenty thirty forty fifty sixty seventy eighty ninety")
THINGS = words("apples stickers marbles pencils cookies shells stamps coins books cards balloons buttons")


def in_words(n: int) -> str:
    """English words for 0 <= n < 1000, American style: 342 is three hundred forty-two."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10 - 2] + (f"-{ONES[n % 10]}" if n % 10 else "")
    return f"{ONES[n // 100]} hundred" + (f" {in_words(n % 100)}" if n % 100 else "")


def roman(n: int) -> str:
    """Roman numeral of 1 <= n < 4000."""
    out = ""
    values = (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1)
    for value, sign in zip(values, words("M CM D CD C XC L XL X IX V IV I"), strict=True):
        out += sign * (n // value)
        n %= value
    return out


@family(
    "What is {a} + {b}? Answer with a number.",
    "Add {a} and {b}. Give only the result.",
    "Please compute the sum of {a} and {b}.",
    "How much is {a} plus {b}? Reply with the number.",
)
def add(rng: Random) -> Item:
    a, b = rng.randrange(1, 100), rng.randrange(1, 100)
    return Item({"a": a, "b": b}, str(a + b))


@family(
    "What is {a} - {b}? Answer with a number.",
    "Subtract {b} from {a}. Give only the result.",
    "How much is {a} minus {b}? Reply with the number.",
    "Please take {b} away from {a} and write what is left.",
)
def subtract(rng: Random) -> Item:
    b = rng.randrange(1, 60)
    a = b + rng.randrange(0, 40)
    return Item({"a": a, "b": b}, str(a - b))


@family(
    "What is {a} times {b}? Answer with a number.",
    "Multiply {a} by {b}. Give only the result.",
    "Compute the product of {a} and {b}.",
    "How much is {a} x {b}? Reply with the number.",
)
def multiply(rng: Random) -> Item:
    a, b = rng.randrange(2, 13), rng.randrange(2, 21)
    return Item({"a": a, "b": b}, str(a * b))


@family(
    "What is {a} divided by {b}? Answer with a number.",
    "Divide {a} by {b}. Give only the result.",
    "How many times does {b} go into {a}?",
    "Share {a} equally among {b} people. How many does each get?",
)
def divide(rng: Random) -> Item:
    b, q = rng.randrange(2, 13), rng.randrange(1, 21)
    return Item({"a": b * q, "b": b}, str(q))


@family(
    "What is the remainder when {a} is divided by {b}?",
    "Divide {a} by {b} and give only the remainder.",
    "What is {a} modulo {b}? Answer with a number.",
)
def remainder(rng: Random) -> Item:
    a, b = rng.randrange(10, 80), rng.randrange(2, 10)
    return Item({"a": a, "b": b}, str(a % b))


@family(
    "What is {p}% of {a}? Answer with a number.",
    "Compute {p} percent of {a}.",
    "How much is {p} percent of {a}? Give only the number.",
)
def percent(rng: Random) -> Item:
    p, a = rng.choice((10, 20, 25, 50, 75)), 20 * rng.randrange(1, 31)
    return Item({"p": p, "a": a}, str(p * a // 100))


@family(
    "What is {a} squared? Answer with a number.",
    "Multiply the number {a} by itself. Give only the result.",
    "Compute the square of {a}.",
    "A square has sides of {a} cm. What is its area in square centimetres?",
)
def square(rng: Random) -> Item:
    a = rng.randrange(2, 41)
    return Item({"a": a}, str(a * a))


@family(
    "{who} has {a} {things} and gets {b} more. How many {things} does {who} have now?",
    "{who} had {a} {things}. A friend gave {who} {b} more. What is the total number of {things}?",
    "There are {a} {things} in a box and {who} adds {b}. How many {things} are in the box?",
)
def story_add(rng: Random) -> Item:
    a, b = rng.randrange(2, 30), rng.randrange(2, 20)
    return Item({"who": rng.choice(NAMES), "a": a, "things": rng.choice(THINGS), "b": b}, str(a + b))


@family(
    "{who} has {a} {things} and gives away {b}. How many {things} are left?",
    "{who} had {a} {things} but lost {b} of them. How many {things} does {who} still have?",
    "A box holds {a} {things}. {who} takes {b} out. How many {things} remain in the box?",
)
def story_subtract(rng: Random) -> Item:
    b = rng.randrange(2, 20)
    a = b + rng.randrange(1, 20)
    return Item({"who": rng.choice(NAMES), "a": a, "things": rng.choice(THINGS), "b": b}, str(a - b))


@family(
    "Round {a} to the nearest ten.",
    "What is {a} rounded to the nearest ten? Answer with a number.",
    "Give the multiple of ten that is closest to {a}.",
)
def round_to_ten(rng: Random) -> Item:
    ten, off = 10 * rng.randrange(1, 60), rng.choice((-4, -3, -2, -1, 1, 2, 3, 4))
    return Item({"a": ten + off}, str(ten))


@family(
    "Is {a} an even or an odd number?",
    "Tell me whether {a} is odd or even.",
    "The number {a}: even or odd? Answer with one word.",
)
def even_odd(rng: Random) -> Item:
    a = rng.randrange(1, 1000)
    return Item({"a": a}, "odd" if a % 2 else "even", ("even", "odd"))


@family(
    "Is {a} a prime number? Answer yes or no.",
    "Yes or no: the number {a} is prime.",
    "Does the number {a} have exactly two divisors? Answer yes or no.",
)
def prime(rng: Random) -> Item:
    want = rng.random() < 0.5
    while True:
        a = rng.randrange(2, 200)
        if all(a % d for d in range(2, a)) == want:
            return either(rng, want, {"a": a})


@family(
    "Which number is larger: {a} or {b}?",
    "Of the numbers {a} and {b}, which is greater?",
    "Compare {a} and {b}. Write the bigger one.",
)
def larger(rng: Random) -> Item:
    a, b = rng.sample(range(1, 1000), 2)
    return Item({"a": a, "b": b}, str(max(a, b)), (str(a), str(b)))


@family(
    "Is {a} greater than {b}? Answer yes or no.",
    "Yes or no: {a} is more than {b}.",
    "Does {a} exceed {b}? Answer yes or no.",
)
def greater_than(rng: Random) -> Item:
    a, b = rng.sample(range(1, 500), 2)
    return either(rng, a > b, {"a": a, "b": b})


@family(
    "Write {a} as a Roman numeral.",
    "Convert the number {a} to Roman numerals.",
    "How do you write {a} in Roman numerals?",
)
def to_roman(rng: Random) -> Item:
    a = rng.randrange(1, 101)
    return Item({"a": a}, roman(a))


@family(
    "What number is the Roman numeral {a}?",
    "Convert the Roman numeral {a} to a decimal number.",
    "Write {a}, a Roman numeral, in ordinary digits.",
)
def from_roman(rng: Random) -> Item:
    a = rng.randrange(1, 101)
    return Item({"a": roman(a)}, str(a))


@family(
    "Write the number {a} in words.",
    "Spell out {a} in English words.",
    "How is the number {a} written in words?",
)
def number_to_words(rng: Random) -> Item:
    a = rng.randrange(11, 1000)
    answer = in_words(a)
    return Item({"a": a}, answer, also=(answer.replace("hundred ", "hundred and "),) if "hundred " in answer else ())


@family(
    'Write "{a}" in digits.',
    'Which number is "{a}"? Answer with digits.',
    "Convert these number words to digits: {a}",
)
def words_to_number(rng: Random) -> Item:
    a = rng.randrange(11, 1000)
    return Item({"a": in_words(a)}, str(a))
