"""`edjax export` and `edjax import-labels`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from edjax.cli import options
from edjax.cli.grouped import Grouped, option

FORMATS = ("label-studio", "argilla", "csv", "jsonl", "trl", "axolotl", "llama-factory")
ANSWERS = ("label-studio", "argilla", "csv", "jsonl", "openai-batch")
NEXT = {
    "label-studio": "make a project with the labelling interface {1}, import {0}, and export JSON when it is done",
    "argilla": "argilla.Dataset.from_disk({out!r}), and when it is done "
    "json.dump(dataset.records.to_list(flatten=True), open('answers.json', 'w'))",
    "csv": "have the column `response` filled in",
    "jsonl": 'have each row answered in a column "response", or a last assistant turn',
    "trl": "SFTTrainer(model, train_dataset=load_dataset('json', data_files={0!r}, split='train'))",
    "axolotl": "copy {1} into axolotl's config",
    "llama-factory": "llamafactory-cli train with dataset_dir: {out}, dataset: edjax, mask_history: true",
}

ANSWERED, FOR = "Answers", "For whom"
POOL = option(
    "--pool",
    multiple=True,
    callback=options.one_or_more,
    help="The pool, where SELECTION was made without one and holds ids alone.",
    section=options.READING,
)


@click.command(cls=Grouped)
@click.argument("selection")
@option(
    "--to",
    required=True,
    type=click.Choice(FORMATS),
    help="For people: the first four. For trainers: the rest.",
    section=FOR,
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File or directory to write.")
@POOL
@click.option("--overwrite", is_flag=True, help="Replace files that are there and hold something else.")
@options.pool_options
@options.JSON
def export(
    selection: str, to: str, out: Path, overwrite: bool, pool: str | list[str] | None, reading: dict[str, Any]
) -> None:
    """Hand the chosen rows to people who answer them, or answered rows to a trainer elsewhere.

    \b
    Reads   SELECTION: a directory of `edjax select`, or any pool
    Writes  label-studio   tasks.json and label_config.xml, the labelling interface
            argilla        a directory for Dataset.from_disk: records.json and .argilla/
            csv            annotate.csv: id, prompt, response (empty), order, scores; opens in a spreadsheet
            jsonl          rows.jsonl: the rows untouched
            trl            train.jsonl: prompt and completion turns
            axolotl        train.jsonl: messages; datasets.yaml
            llama-factory  edjax.json: ShareGPT rows; dataset_info.json
    OUT is a directory, or the name of the first of these files. The last three need a response in every row; columns
    on which a trainer would act (input_ids, labels, images, ...) are left out, with a note.
    """
    from edjax.handoff import export as run_export
    from edjax.handoff import read_chosen

    chosen = read_chosen(selection, pool=pool, log=options.note, **reading)
    files = run_export(chosen, to, out, overwrite=overwrite, log=options.note)
    then = [f"next: {NEXT[to].format(*map(str, files), out=str(out))}"]
    if to in ANSWERS:
        named = [
            "edjax",
            "import-labels",
            "FILE" if selection == options.STDIN else selection,
            "ANSWERS",
            "--out",
            "answered.jsonl",
        ]
        named += options.named(pool) if pool else []
        named += options.flags(reading)
        then.append(f"then: {shlex.join(named)}")
    record: dict[str, Any] = {"rows": len(chosen), "format": to, "files": [str(f) for f in files]}
    options.tell(record, f"{options.count(len(chosen), 'rows')} for {to} in {', '.join(map(str, files))}", *then)


@click.command("import-labels", cls=Grouped)
@click.argument("selection")
@click.argument("answers", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File of rows to write: answered.jsonl.")
@option(
    "--from",
    "kind",
    type=click.Choice(ANSWERS),
    help="Their format; told from the files if not given.",
    section=ANSWERED,
)
@option("--partial", is_flag=True, help="Leave rows without an answer out, in place of an error.", section=ANSWERED)
@option(
    "--annotator",
    help="Of several answers to a row, which: first, last or a person's name in the file.",
    section=ANSWERED,
)
@POOL
@click.option("--overwrite", is_flag=True, help="Replace OUT where it holds something else.")
@options.pool_options
@options.JSON
def import_labels(
    selection: str,
    answers: tuple[str, ...],
    out: Path,
    kind: str | None,
    partial: bool,
    annotator: str | None,
    overwrite: bool,
    pool: str | list[str] | None,
    reading: dict[str, Any],
) -> None:
    """Join people's answers to the rows they belong to, by id.

    \b
    Reads   SELECTION: the directory or pool that was exported
            ANSWERS: what Label Studio (JSON, JSON-MIN or CSV) or Argilla exports, output of OpenAI's batch API, a CSV
            file, or JSON Lines with id and response; one or more files, also gzipped
    Writes  OUT: the chosen rows in their order, each with its answer in the field of its own shape
    Unknown ids and prompts that changed are refused by name; so are rows without an answer (--partial leaves them out)
    and two different answers to one row, unless one is marked as ground truth or --annotator says which.
    """
    from edjax.handoff import read_chosen, write_all
    from edjax.handoff.labels import import_labels as run_import

    chosen = read_chosen(selection, pool=pool, log=options.note, **reading)
    known = chosen.pool.reading
    done = run_import(
        chosen, answers, kind=kind, id_column=known.id_column or "id", partial=partial, annotator=annotator
    )
    write_all({out: b"".join(line + b"\n" for line in done.lines)}, overwrite)
    for text in done.notes:
        options.note(text)
    if done.missing:
        names = ", ".join(done.missing[:5]) + (", ..." if len(done.missing) > 5 else "")
        found = f", {done.why()}" if done.reasons else ""
        options.note(f"{options.count(len(done.missing), 'rows')} without an answer left out{found}: {names}")
    columns = options.flags(known.record(), "split", "revision", "skip_bad_lines")
    record = {"rows": len(done.lines), "missing": list(done.missing), "skipped": list(done.skipped)}
    record["reasons"] = done.reasons
    options.tell(
        record | {"formats": list(done.formats), "out": str(out)},
        f"{len(done.lines)} of {options.count(len(chosen), 'rows')} answered ({', '.join(done.formats)}) in {out}",
        f"next: {shlex.join(['edjax', 'finetune', str(out), '--out', 'adapter', *columns])}",
    )
