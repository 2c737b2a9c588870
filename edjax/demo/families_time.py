"""Days, dates, clocks and units."""

from __future__ import annotations

from random import Random

from edjax.demo.families import Item, either, family
from edjax.demo.words import NAMES, words

DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words("January February March April May June July August September October November December")


def _leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _days(n: int) -> str:
    return f"{n} day{'s' if n > 1 else ''}"


@family(
    "Today is {d}. Which day of the week is it in {k}?",
    "What day of the week is {k} after {d}?",
    "It is {d}. Name the weekday {k} from now.",
)
def weekday_after(rng: Random) -> Item:
    i, k = rng.randrange(7), rng.randrange(1, 15)
    return Item({"d": DAYS[i], "k": _days(k)}, DAYS[(i + k) % 7])


@family(
    "Which month comes {k} after {m}?",
    "It is {m}. Which month will it be in {k}?",
    "Name the month that is {k} later than {m}.",
)
def month_after(rng: Random) -> Item:
    i, k = rng.randrange(12), rng.randrange(1, 12)
    return Item({"k": f"{k} month{'s' if k > 1 else ''}", "m": MONTHS[i]}, MONTHS[(i + k) % 12])


@family(
    "Is {y} a leap year? Answer yes or no.",
    "Yes or no: the year {y} has 366 days.",
    "Does February of {y} have 29 days? Answer yes or no.",
)
def leap_year(rng: Random) -> Item:
    want = rng.random() < 0.5
    while True:
        y = rng.randrange(1880, 2081)
        if _leap(y) == want:
            return either(rng, want, {"y": y})


@family(
    "How many days does {m} {y} have?",
    "Give the number of days in {m} of the year {y}.",
    "How long is {m} {y}, in days? Answer with a number.",
)
def days_in_month(rng: Random) -> Item:
    m, y = rng.randrange(12), rng.randrange(1990, 2041)
    return Item({"m": MONTHS[m], "y": y}, str((31, 29 if _leap(y) else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[m]))


def _date(rng: Random) -> tuple[int, int, int]:
    return rng.randrange(1950, 2040), rng.randrange(1, 13), rng.randrange(1, 29)


@family(
    "Write the date {d} {m} {y} as YYYY-MM-DD.",
    "Convert {m} {d}, {y} to the format YYYY-MM-DD.",
    "What is {d} {m} {y} in the form YYYY-MM-DD?",
)
def iso_date(rng: Random) -> Item:
    y, m, d = _date(rng)
    return Item({"d": d, "m": MONTHS[m - 1], "y": y}, f"{y:04d}-{m:02d}-{d:02d}")


@family(
    "Write {t} {half} in 24-hour time (HH:MM).",
    "Convert {t} {half} to the 24-hour clock, as HH:MM.",
    "What does a 24-hour clock show at {t} {half}? Use HH:MM.",
)
def clock_24(rng: Random) -> Item:
    h, m = rng.randrange(24), 5 * rng.randrange(12)
    return Item({"t": f"{(h + 11) % 12 + 1}:{m:02d}", "half": "AM" if h < 12 else "PM"}, f"{h:02d}:{m:02d}")


@family(
    "It is {t}. What time will it be in {k} minutes? Use HH:MM.",
    "Add {k} minutes to {t} and write the time as HH:MM.",
    "A film of {k} minutes starts at {t}. When does it end? Use HH:MM.",
)
def add_minutes(rng: Random) -> Item:
    start, k = 5 * rng.randrange(12 * 6, 12 * 20), 5 * rng.randrange(1, 25)
    end = start + k
    return Item({"t": f"{start // 60:02d}:{start % 60:02d}", "k": k}, f"{end // 60:02d}:{end % 60:02d}")


@family(
    "How many minutes are there between {a} and {b} on the same day?",
    "A lesson runs from {a} to {b}. How many minutes does it last?",
    "The bus leaves at {a} and arrives at {b}. How many minutes does it take?",
)
def minutes_between(rng: Random) -> Item:
    start, k = 5 * rng.randrange(12 * 6, 12 * 20), 5 * rng.randrange(1, 25)
    a, b = (f"{t // 60:02d}:{t % 60:02d}" for t in (start, start + k))
    return Item({"a": a, "b": b}, str(k))


@family(
    "{who} was born in {a}. How old did {who} turn in {b}?",
    "{who}, born in {a}, has a birthday party in {b}. Which age is celebrated?",
    "Which age did {who} reach in {b}, if the year of birth is {a}?",
)
def age(rng: Random) -> Item:
    a, k = rng.randrange(1930, 2000), rng.randrange(5, 60)
    return Item({"who": rng.choice(NAMES), "a": a, "b": a + k}, str(k))


UNITS = {
    "length": (("metres", "centimetres", 100), ("kilometres", "metres", 1000), ("centimetres", "millimetres", 10)),
    "weight": (("kilograms", "grams", 1000), ("tonnes", "kilograms", 1000), ("grams", "milligrams", 1000)),
    "time": (("hours", "minutes", 60), ("minutes", "seconds", 60), ("days", "hours", 24), ("weeks", "days", 7)),
}
_ASK = (
    "How many {small} are {k} {big}? Answer with a number.",
    "Convert {k} {big} to {small}. Give only the number.",
    "Express {k} {big} in {small}, number only.",
)


def _unit(rng: Random, kind: str) -> Item:
    big, small, factor = rng.choice(UNITS[kind])
    k = rng.randrange(2, 31)
    return Item({"k": k, "big": big, "small": small}, str(k * factor))


@family(*_ASK)
def unit_length(rng: Random) -> Item:
    return _unit(rng, "length")


@family(*_ASK)
def unit_weight(rng: Random) -> Item:
    return _unit(rng, "weight")


@family(*_ASK)
def unit_time(rng: Random) -> Item:
    return _unit(rng, "time")


@family(
    "Convert {c} degrees Celsius to Fahrenheit. Give only the number.",
    "How many degrees Fahrenheit are {c} degrees Celsius?",
    "The oven shows {c} degrees Celsius. What is that in Fahrenheit? Number only.",
)
def fahrenheit(rng: Random) -> Item:
    c = 5 * rng.randrange(1, 41)
    return Item({"c": c}, str(c * 9 // 5 + 32))
