"""What the tests of the hand-off share: rows of every shape, texts that break careless code, and the tools' exports.

`label_studio`, `argilla`, ... turn exported files and a dict of answers into what that tool writes: checked by hand
against label_studio_sdk 2's converter (JSON, JSON-MIN, CSV) and argilla 2.8 (`to_json`, `to_list(flatten=True)`).
"""

import csv
import io
import json

TEXTS = {
    "plain": "Paris.",
    "newlines": "one\ntwo\r\n\nthree\n",
    "formula": "=cmd()|' /C calc'!A0",
    "minus": "-5 degrees",
    "at": "@home, +1",
    "tab": "\tindented",
    "right to left": "\u05e9\u05dc\u05d5\u05dd, \u0645\u0631\u062d\u0628\u0627",
    "separators": "a\u2028b\u2029c\x85d\x0be\x0cf",
    "quotes": "She said \"no\", then 'yes'; and \\n stayed",
    "apostrophe": "'tis true",
    "emoji": "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "html": "<script>alert(1)</script> &amp; </textarea>",
    "json": '{"response": [1, 2]}',
    "spaces": "  padded  ",
    "long": "word " * 8000,
}
PROMPT = 'What is "x",\nthen; =1+1? \u05e9 \u2028 \U0001f600'
U, S, A = "user", "system", "assistant"


def turn(role, content):
    return {"role": role, "content": content}


def said(who, text):
    return {"from": who, "value": text}


SHAPES = {  # a row without an answer, by the name of its shape; one with what is to be replaced where that differs
    "prompt": lambda p: {"prompt": p},
    "prompt null": lambda p: {"prompt": p, "response": None, "after": 1},
    "prompt completion": lambda p: {"prompt": p, "completion": "an older answer"},
    "prompt turns": lambda p: {"prompt": [turn(S, "Be brief."), turn(U, p)]},
    "prompt turns answered": lambda p: {"prompt": [turn(U, p), turn(A, "old")]},
    "messages": lambda p: {"messages": [turn(S, ""), turn(U, "Hi"), turn(A, "Hello"), turn(U, p)], "n": 1.50},
    "messages answered": lambda p: {"messages": [turn(U, p), turn(A, "")]},
    "sharegpt": lambda p: {"conversations": [said("human", "Hi"), said("bot", "Hey"), said("human", p)]},
    "alpaca": lambda p: {"instruction": "Answer.", "input": p, "output": ""},
    "alpaca bare": lambda p: {"instruction": p},
    "text": lambda p: {"text": p, "refs": ["a", "b"]},
}


def pool_file(path, rows, ids=True, **options):
    named = [({"id": f"r{i}"} if ids else {}) | row for i, row in enumerate(rows)]
    path.write_text("".join(json.dumps(r, **options) + "\n" for r in named), encoding="utf-8")
    return path


def selection(tmp_path, pool, picks):
    """A directory of `edjax select` over a pool, with these rows in this order."""
    import numpy as np

    from edjax.data.features import Features
    from edjax.data.pool import read_pool
    from edjax.selection.selection import Selection, write_selection

    pool, n = read_pool(pool), len(picks)
    found = Features(pool.ids, np.zeros((len(pool), 2), np.float32), {"mean_nll": np.arange(len(pool)) / 8}, {}, "d")
    gains = np.asarray([np.inf, *range(n - 1, 0, -1)], np.float32)
    chosen = Selection("k_center", tuple(pool.ids[i] for i in picks), np.asarray(picks), gains, 0.1)
    return write_selection(chosen, found, pool, tmp_path / "chosen", config={"strategy": "k_center"})


# What the tools write


def label_studio(out, answers):
    tasks = json.loads((out / "tasks.json").read_bytes())
    for n, task in enumerate(tasks, 100):
        text = answers.get(task["data"]["edjax_id"])
        area = {"id": "a1", "type": "textarea", "from_name": "response", "to_name": "prompt", "origin": "manual"}
        done = {"id": 7 * n, "completed_by": 1, "was_cancelled": False, "lead_time": 4.2}
        task |= {
            "id": n,
            "annotations": [] if text is None else [done | {"result": [area | {"value": {"text": [text]}}]}],
        }
    return "export.json", json.dumps(tasks).encode()


def label_studio_min(out, answers):
    tasks = json.loads((out / "tasks.json").read_bytes())
    rows = []
    for n, task in enumerate(tasks, 100):
        if (text := answers.get(task["data"]["edjax_id"])) is not None:
            more = {"response": text, "annotator": 1, "annotation_id": 7 * n, "lead_time": 4.2}
            rows.append(task["data"] | {"id": n} | more)
    return "result.json", json.dumps(rows, ensure_ascii=False).encode()


def argilla(out, answers):
    records = json.loads((out / "records.json").read_bytes())
    for r in records:
        text = answers.get(r["id"])
        given = {} if text is None else {"response": [{"value": text, "user_id": "3ef951fd"}]}
        r |= {"suggestions": {}, "responses": given, "vectors": {}, "status": "completed", "_server_id": None}
    return "records.json", json.dumps(records).encode()


def spreadsheet(out, answers, delimiter=",", bom="\ufeff", end="\r\n"):
    text = (out / "annotate.csv").read_bytes().decode("utf-8-sig")
    table = list(csv.reader(io.StringIO(text, newline="")))
    made = io.StringIO(newline="")
    write = csv.writer(made, delimiter=delimiter, lineterminator=end)
    write.writerow(table[0])
    for cells in table[1:]:
        cells[2] = answers.get(cells[0].removeprefix("'"), "")
        write.writerow(cells)
    return "answers.csv", (bom + made.getvalue()).encode()


def lines(out, answers):
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_bytes().split(b"\n") if line]
    return "answers.jsonl", b"".join(json.dumps(r | {"response": answers.get(r["id"])}).encode() + b"\n" for r in rows)


def bare_lines(out, answers):
    return "a.jsonl", b"".join(json.dumps({"id": i, "response": t}).encode() + b"\n" for i, t in answers.items())


TOOLS = {  # what was exported -> what comes back
    "label-studio": ("label-studio", label_studio),
    "label-studio min": ("label-studio", label_studio_min),
    "argilla": ("argilla", argilla),
    "csv": ("csv", spreadsheet),
    "csv of Excel": ("csv", lambda out, a: spreadsheet(out, a, delimiter=";")),
    "csv of LibreOffice": ("csv", lambda out, a: spreadsheet(out, a, delimiter="\t", bom="", end="\n")),
    "jsonl": ("jsonl", lines),
    "jsonl bare": ("jsonl", bare_lines),
}
