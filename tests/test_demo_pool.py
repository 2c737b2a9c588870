"""The generated pool: right answers (recomputed from the prompts' text alone), a long tail, no leaks, stable bytes."""

import calendar
import datetime
import json
import re
from collections import Counter, defaultdict
from random import Random

import pytest

from edjax.data.pool import read_pool
from edjax.demo import generate, write
from edjax.demo.families import REGISTRY
from edjax.demo.generate import ranking, sizes
from edjax.demo.words import KINDS, NAMES, NOUNS, RHYMES, words
from edjax.keep.errors import UsageError
from edjax.keep.store import sha256_json

DAYS = list(calendar.day_name)
MONTHS = list(calendar.month_name)


@pytest.fixture(scope="module")
def made():
    return generate()


@pytest.fixture(scope="module")
def drawn():
    """Many items of every family in every phrasing: (task, prompt, item)."""
    out = []
    for name, family in REGISTRY.items():
        rng = Random(f"test/{name}")
        for _ in range(150):
            item = family.make(rng)
            out += [(name, phrasing.format(**item.fields), item) for phrasing in family.phrasings]
    return out


# Answers, recomputed from the prompt's text


def ints(prompt):
    return [int(x) for x in re.findall(r"\d+", prompt)]


def listed(prompt):
    """The nouns of the one comma-separated list in a prompt."""
    runs = re.findall(r"\w+(?:, ?\w+)+", prompt)
    return [w for w in re.split(r", ?", max(runs, key=len)) if w in NOUNS]


def noun(prompt):
    found = [w for w in re.findall(r"[a-z]+", prompt) if w in NOUNS]
    return ([w for w in found if w != "letter"] or found)[0]


def quoted(prompt):
    return re.findall(r'"([^"]*)"', prompt)


def clock(prompt):
    return [60 * int(h) + int(m) for h, m in re.findall(r"(\d+):(\d\d)", prompt)]


def hhmm(minutes):
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def from_roman(text):
    values = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}[c] for c in text]
    return sum(-v if any(w > v for w in values[i + 1 : i + 2]) else v for i, v in enumerate(values))


UNITS = words("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen")
UNITS += words("seventeen eighteen nineteen")
TENS = words("twenty thirty forty fifty sixty seventy eighty ninety")
NUMBER_WORDS = {w: i for i, w in enumerate(UNITS)} | {w: 20 + 10 * i for i, w in enumerate(TENS)} | {"and": 0}


def from_words(text):
    total = 0
    for w in re.findall(r"[a-z]+", text):
        total = total * 100 if w == "hundred" else total + NUMBER_WORDS[w]
    return total


def units(prompt):
    lengths = {"kilometres": 10**6, "metres": 1000, "centimetres": 10, "millimetres": 1}
    weights = {"tonnes": 10**9, "kilograms": 10**6, "grams": 1000, "milligrams": 1}
    times = {"weeks": 604800, "days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
    in_base = lengths | weights | times
    found = [w for w in re.findall(r"[a-z]+", prompt) if w in in_base]
    big, small = sorted(found, key=lambda w: -in_base[w])
    return ints(prompt)[0] * in_base[big] // in_base[small]


def next_term(prompt):
    xs = ints(prompt)
    return xs[-1] + xs[-1] - xs[-2]


def missing(prompt):
    xs = re.search(r"[\d_]+(?:, [\d_]+){4}", prompt)[0].split(", ")
    gap = xs.index("_")
    return (int(xs[gap - 1]) + int(xs[gap + 1])) // 2


def weekday(prompt):
    day = next(d for d in DAYS if d in prompt)
    return DAYS[(DAYS.index(day) + ints(prompt)[0]) % 7]


def month(prompt):
    i = next(i for i in range(1, 13) if MONTHS[i] in prompt)
    return MONTHS[(i - 1 + ints(prompt)[0]) % 12 + 1]


def month_length(prompt):
    i = next(i for i in range(1, 13) if MONTHS[i] in prompt)
    return calendar.monthrange(ints(prompt)[0], i)[1]


def iso(prompt):
    day, year = ints(prompt)[:2]
    name = next(m for m in MONTHS[1:] if m in prompt)
    return datetime.datetime.strptime(f"{day} {name} {year}", "%d %B %Y").date().isoformat()


def clock_24(prompt):
    text = re.search(r"\d+:\d\d [AP]M", prompt)[0]
    return datetime.datetime.strptime(text, "%I:%M %p").strftime("%H:%M")


def yes(truth):
    return "yes" if truth else "no"


def is_prime(n):
    return n > 1 and not any(n % d == 0 for d in range(2, int(n**0.5) + 1))


def lookup(prompt):
    obj = re.search(r"\{.*\}", prompt)[0]
    rest = prompt.replace(obj, "")
    values = json.loads(obj)
    return str(next(v for k, v in values.items() if re.search(rf"\b{k}\b", rest)))


def boolean(prompt):
    text = re.search(r"\((true|false) .*?(true|false)(?=[\":.? ]*(\"|:|\.|$))", prompt)[0].strip('":. ')
    return str(eval(text.replace("true", "True").replace("false", "False"))).lower()


def people(prompt):
    pairs = [(a, b) for a, b in re.findall(r"(\w+) is taller than (\w+)", prompt)]
    pairs += [(b, a) for a, b in re.findall(r"(\w+) is shorter than (\w+)", prompt)]
    order = sorted(
        {p for pair in pairs for p in pair}, key=lambda p: sum(p == a for a, _ in pairs) - sum(p == b for _, b in pairs)
    )
    return order[-1] if "tallest" in prompt else order[0]


def kind(word):
    return next(k for k, ws in KINDS.items() if word in ws)


def odd(prompt):
    shown = [w for w in re.findall(r"\w+", prompt) if any(w in ws for ws in KINDS.values())]
    count = Counter(kind(w) for w in shown)
    assert sorted(count.values()) == [1, 3]
    return next(w for w in shown if count[kind(w)] == 1)


def letters(prompt, size):
    return next(q for q in quoted(prompt) if (len(q) == 1) == (size == 1))


def replaced(prompt):
    word = letters(prompt, 5)
    a, b = sorted((q for q in quoted(prompt) if len(q) == 1), key=lambda c: c not in word)
    assert a in word and b not in word
    return "".join(b if c == a else c for c in word)


CHECKS = {
    "add": lambda p: sum(ints(p)),
    "subtract": lambda p: max(ints(p)) - min(ints(p)),
    "multiply": lambda p: ints(p)[0] * ints(p)[1],
    "divide": lambda p: max(ints(p)) / min(ints(p)),
    "remainder": lambda p: ints(p)[0] - ints(p)[1] * (ints(p)[0] // ints(p)[1]),
    "percent": lambda p: ints(p)[0] * ints(p)[1] / 100,
    "square": lambda p: ints(p)[0] ** 2,
    "story_add": lambda p: sum(ints(p)),
    "story_subtract": lambda p: ints(p)[0] - ints(p)[1],
    "round_to_ten": lambda p: 10 * round(ints(p)[0] / 10),
    "even_odd": lambda p: "odd" if ints(p)[0] & 1 else "even",
    "prime": lambda p: yes(is_prime(ints(p)[0])),
    "larger": lambda p: max(ints(p)),
    "greater_than": lambda p: yes(ints(p)[0] > ints(p)[1]),
    "to_roman": None,
    "from_roman": lambda p: from_roman(next(w for w in re.findall(r"\b[IVXLC]+\b", p))),
    "number_to_words": None,
    "words_to_number": lambda p: from_words((quoted(p) or [p.split(": ")[-1]])[0]),
    "sort_up": lambda p: ", ".join(map(str, sorted(ints(p)))),
    "maximum": lambda p: max(ints(p)),
    "next_term": next_term,
    "missing_term": missing,
    "sort_words": lambda p: ", ".join(sorted(listed(p))),
    "first_word": lambda p: sorted(listed(p))[0],
    "membership": lambda p: yes(quoted(p)[0] in listed(p)),
    "odd_one_out": odd,
    "csv_to_list": lambda p: json.dumps(listed(p)),
    "json_lookup": lookup,
    "reverse_word": lambda p: "".join(reversed(noun(p))),
    "word_length": lambda p: len(noun(p)),
    "count_letter": lambda p: letters(p, 5).count(letters(p, 1)),
    "count_vowels": lambda p: len(re.sub("[^aeiou]", "", noun(p.replace("(a, e, i, o, u)", "")))),
    "replace_letter": replaced,
    "first_letter": lambda p: noun(p)[0],
    "nth_word": lambda p: (quoted(p) or [p.split(": ")[-1]])[0].split()[ints(p)[0] - 1],
    "upper": lambda p: (quoted(p) or [p.split(": ")[-1]])[0].upper(),
    "has_letter": lambda p: yes(letters(p, 1) in letters(p, 5)),
    "weekday_after": weekday,
    "month_after": month,
    "leap_year": lambda p: yes(calendar.isleap(max(ints(p)))),
    "days_in_month": month_length,
    "iso_date": iso,
    "clock_24": clock_24,
    "add_minutes": lambda p: hhmm(clock(p)[0] + int(re.sub(r"\d+:\d\d", "", p).split(" minutes")[0].split()[-1])),
    "minutes_between": lambda p: clock(p)[1] - clock(p)[0],
    "age": lambda p: max(ints(p)) - min(ints(p)),
    "unit_length": units,
    "unit_weight": units,
    "unit_time": units,
    "fahrenheit": lambda p: round(ints(p)[0] * 1.8 + 32),
    "boolean": boolean,
    "tallest": people,
    "kind_of": lambda p: kind(next(w for w in re.findall(r"\w+", p) if any(w in ws for ws in KINDS.values()))),
    "syllogism": lambda p: yes("All " in p),
    "article": lambda p: "an" if re.search(r"___ (?!uni)[aeiou]", p) else "a",
}
BACKWARDS = {  # checked from the answer back to the prompt
    "to_roman": lambda p, answer: from_roman(answer) == ints(p)[0],
    "number_to_words": lambda p, answer: from_words(answer) == ints(p)[0],
}


@pytest.mark.parametrize("task", CHECKS)
def test_answers_are_right(drawn, task):
    seen = 0
    for name, prompt, item in drawn:
        if name != task:
            continue
        for answer in (item.answer, *item.also):
            if task in BACKWARDS:
                assert BACKWARDS[task](prompt, answer), (prompt, answer)
        if task not in BACKWARDS:
            expected = CHECKS[task](prompt)
            if isinstance(expected, float):
                assert expected == int(expected), prompt
                expected = int(expected)
            assert item.answer == str(expected), (prompt, item.answer, expected)
        seen += 1
    assert seen >= 300


def test_the_checks_cover_the_computable_families():
    assert len(REGISTRY) >= 70
    assert set(CHECKS) <= set(REGISTRY)
    facts = "capital country_of_capital continent opposite animal_sound animal_young colour_of chemical_symbol element"
    facts += " plural past_tense comparative"
    passages = "sentiment mood topic tense receiver where rhyme acronym"
    assert set(REGISTRY) - set(CHECKS) == set(facts.split()) | set(passages.split())


def test_passages_give_their_answer(drawn):
    """The families that are not computed: the answer is in the passage, at the place that the wording says."""
    for name, prompt, item in drawn:
        fields = item.fields
        if name == "receiver":
            assert re.search(rf"(to {item.answer}\.|^{item.answer} received)", prompt), prompt
        elif name == "where":
            assert re.search(rf"(in|lies in) the {item.answer}( and|\.)", prompt), prompt
            assert prompt.index(item.answer) < prompt.index(fields["q"])
        elif name == "acronym":
            assert [w[0].upper() for w in fields["ws"].split()] == list(item.answer)
        elif name == "tense":
            will = " will " in fields["text"]
            present = re.search(r"\w+ (walks|plays|cooks|writes|paints|visits|cleans|waters) ", fields["text"])
            assert item.answer == ("future" if will else "present" if present else "past"), fields
        elif name == "rhyme":
            groups = [g for g in RHYMES if fields["w"] in g]
            assert len(groups) == 1 and [c for c in item.choices if c in groups[0]] == [item.answer]


def test_facts():
    """Spot checks, and properties that a slip in a table would break."""
    known = {
        "capital": {"Australia": "Canberra", "Canada": "Ottawa", "Turkey": "Ankara", "Brazil": "Brasilia"},
        "chemical_symbol": {"sodium": "Na", "lead": "Pb", "tin": "Sn", "mercury": "Hg", "gold": "Au", "potassium": "K"},
        "element": {"Fe": "iron", "Ag": "silver", "W": None},
        "plural": {"ox": "oxen", "thief": "thieves", "potato": "potatoes", "key": "keys"},
        "past_tense": {"teach": "taught", "fly": "flew", "carry": "carried"},
        "comparative": {"good": "better", "thin": "thinner", "nice": "nicer"},
        "animal_young": {"goat": "kid", "swan": "cygnet"},
        "opposite": {"deep": "shallow"},
    }
    for name in known:
        rng = Random(f"facts/{name}")
        found = {}
        for _ in range(2000):
            item = REGISTRY[name].make(rng)
            found[item.fields["x"]] = item.answer
        assert len(found) >= 20
        assert {x: found.get(x) for x in known[name]} == known[name]
        assert not any(x == answer for x, answer in found.items())


# The rows


def test_prompts_are_unambiguous(drawn):
    answers = defaultdict(set)
    for _, prompt, item in drawn:
        answers[prompt].add(item.answer)
    assert [p for p, a in answers.items() if len(a) > 1] == []


def test_rows_are_well_formed(made, drawn):
    for row in made[0] + made[1]:
        assert list(row) == ["id", "prompt", "response", "task", "group", "answer_type", "refs", "choices"]
        assert row["refs"][0] == row["response"] and len(set(row["refs"])) == len(row["refs"])
        assert (row["choices"] is not None) == (row["answer_type"] == "choice")
        assert row["choices"] is None or row["response"] in row["choices"]
    for name, prompt, item in drawn:
        assert prompt == prompt.strip() and item.answer == item.answer.strip() != "", name
        assert 10 <= len(prompt) <= 180 and len(item.answer) <= 40, (name, prompt)
        assert not re.search(r"\ba (?:[aeio]|u(?!ni))\w+ (?:is|in|makes)\b", prompt), prompt
        if item.choices:
            assert len(set(item.choices)) == len(item.choices) and item.answer in item.choices
    for family in REGISTRY.values():
        assert len(family.phrasings) >= 3 and len(set(family.phrasings)) == len(family.phrasings), family.name


def test_choices_do_not_give_the_answer_away(drawn):
    """No candidate is right, and no place among the candidates is right, nearly always."""
    by_task = defaultdict(list)
    for name, _, item in drawn:
        if item.choices:
            by_task[name].append(item)
    assert len(by_task) >= 18
    for name, items in by_task.items():
        most = Counter(i.answer for i in items).most_common(1)[0][1] / len(items)
        assert most < 0.75, (name, most)
        if all(set(i.choices) == set(items[0].choices) for i in items):
            continue
        place = Counter(i.choices.index(i.answer) for i in items).most_common(1)[0][1] / len(items)
        assert place < 0.75, (name, place)


def test_pool_and_evaluation_share_nothing(made):
    pool, evaluation = made
    assert len(pool) == 3000 and len(evaluation) == 300
    for rows in made:
        for key in ("id", "prompt"):
            assert len({r[key] for r in rows}) == len(rows)
    for key in ("id", "prompt", "group"):
        assert not {r[key] for r in pool} & {r[key] for r in evaluation}


def test_the_evaluation_is_balanced(made):
    for rows, n in ((made[1], 300), (generate(100, 400, 7)[1], 400)):
        count = Counter(r["task"] for r in rows)
        assert sum(count.values()) == n and len(count) == len(REGISTRY)
        assert max(count.values()) - min(count.values()) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_the_pool_has_a_long_tail(seed):
    pool, _ = generate(seed=seed)
    count = Counter(r["task"] for r in pool)
    assert set(count) == set(REGISTRY)
    ordered = sorted(count.values(), reverse=True)
    assert ordered[0] > 500 and sum(ordered[:10]) > 0.5 * len(pool) and ordered[len(ordered) // 2] < 25
    # a sample as large as there are families misses many of them
    sample = Random(0).sample(pool, len(REGISTRY))
    assert len({r["task"] for r in sample}) < 0.65 * len(REGISTRY)
    # the head repeats itself: most of its prompts are equal but for what fills the gaps
    head = count.most_common(1)[0][0]
    phrasing = REGISTRY[head].phrasings[0]
    pattern = re.sub(r"\\\{\w+\\\}", ".+", re.escape(phrasing))
    assert sum(bool(re.fullmatch(pattern, r["prompt"])) for r in pool if r["task"] == head) > 0.8 * count[head]


def test_ranks_and_sizes():
    assert ranking(0) != ranking(1) and sorted(ranking(0)) == sorted(REGISTRY)
    assert sizes(3000, 75)[:3] == [612, 306, 204] and sum(sizes(3000, 75)) == 3000
    for n in (1, 7, 200):
        assert sum(sizes(n, 75)) == n and min(sizes(n, 75)) >= 0


def test_the_same_seed_gives_the_same_bytes(made, tmp_path):
    """The digests hold on every supported Python; a change of any family changes them, on purpose only."""
    assert generate() == made
    assert generate(seed=1)[0] != made[0]
    assert sha256_json(made)[:16] == "2a8509f42265cca9"
    assert sha256_json(generate(200, 50, 3))[:16] == "b63efb25024ea2f5"


def test_write_and_read_back(made, tmp_path):
    paths = write(tmp_path / "demo")
    assert [p.name for p in paths] == ["pool.jsonl", "eval.jsonl"]
    assert sorted(p.name for p in paths[0].parent.iterdir()) == ["eval.jsonl", "pool.jsonl"]
    for path, rows in zip(paths, made, strict=True):
        pool = read_pool(path)
        assert pool.records == tuple(rows) and pool.notes == ()
        assert pool.responses[5] == rows[5]["response"] and pool.ids[5] == rows[5]["id"]


def test_too_many_rows():
    with pytest.raises(UsageError, match="ask for fewer"):
        generate(100, 5000)
    with pytest.raises(UsageError, match="n >= 1"):
        generate(0)


def test_word_lists():
    for some in (NOUNS, NAMES, *KINDS.values(), *RHYMES):
        assert len(set(some)) == len(some)
    everything = [w for ws in KINDS.values() for w in ws]
    assert len(set(everything)) == len(everything)
    everything = [w for g in RHYMES for w in g]
    assert len(set(everything)) == len(everything)
    assert len({n[0] for n in NAMES}) > 15 and all(re.fullmatch("[a-z]{4,8}", n) for n in NOUNS)
