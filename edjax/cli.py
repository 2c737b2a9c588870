"""The command line: one verb a stage, thin over the function of the same name."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edjax.errors import EdjaxError

OUT = click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory to write.")
OVERWRITE = click.option("--overwrite", is_flag=True, help="Start again in a directory made with other settings.")
MODEL = click.option(
    "--model",
    default="smollm2",
    show_default=True,
    help="smollm2 (embedded default), a Hugging Face directory, a .gguf file, or a hub id.",
)
DTYPE = click.option("--dtype", default="float32", show_default=True, help="float32 or bfloat16.")
MESH = click.option("--mesh", default="", help="Devices: data=8 shares out rows, fsdp=8 the weights too; -1: the rest.")
TEMPLATE = click.option(
    "--template", default="auto", show_default=True, help="auto, chat (the model's chat template) or plain."
)
MAX_LENGTH = click.option("--max-length", default=1024, show_default=True, help="Most tokens of a prompt.")


class Bytes(click.ParamType):
    """A number of bytes: 4GiB, 500MB, 1e9."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes as an int, or a usage error that names the value."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d*)?(?:e\d+)?) *([kmgt]?)(i?)b?", str(value).lower())
        if not found:
            self.fail(f"{value!r} is no size; write 4GiB or 500MB", param, ctx)
        return int(float(found[1]) * (1024 if found[3] else 1000) ** " kmgt".index(found[2] or " "))


def pool_options(f: Any) -> Any:
    """What every verb that reads a pool takes."""
    f = click.option("--skip-bad-lines", is_flag=True, help="Leave malformed lines out and count them.")(f)
    f = click.option("--id-column", default="id", show_default=True, help="Column that names the rows.")(f)
    return click.option("--text-column", help="Column with the prompt, where the name is none edjax knows.")(f)


def _pool(source: str, text_column: str | None, id_column: str, skip_bad_lines: bool) -> Any:
    from edjax.pool import read_pool

    return read_pool(source, text_column=text_column, id_column=id_column, skip_bad_lines=skip_bad_lines, log=_note)


def _note(text: str) -> None:
    click.echo(f"edjax: note: {text}", err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="edjax", prog_name="edjax")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Choose which prompts are worth annotating, before anyone annotates them; then finetune on them.

    \b
    A pool of prompts goes in; one pass of the base model scores it; a strategy orders it; you label the first k
    rows; LoRA finetunes the model on them; an evaluation says how many labels were saved.
    `edjax demo` walks the whole road on data it makes itself.
    """


@cli.command()
@click.argument("pool")
@MODEL
@OUT
@click.option("--layer", default=-1, show_default=True, help="Hidden states to embed with; -1 last, 0 embeddings.")
@click.option("--pooling", default="mean", show_default=True, help="mean, last or weighted_mean over prompt tokens.")
@click.option("--max-new-tokens", default=16, show_default=True, help="Tokens decoded for uncertainty; 0 for none.")
@TEMPLATE
@MAX_LENGTH
@click.option("--batch-size", default=32, show_default=True)
@DTYPE
@MESH
@OVERWRITE
@pool_options
def score(pool: str, out: Path, text_column: str | None, id_column: str, skip_bad_lines: bool, **settings: Any) -> None:
    """Embed every prompt of POOL and measure the model's uncertainty.

    \b
    Reads   POOL: .jsonl(.gz), .json, .csv, .parquet, a `datasets` directory or a hub id; responses are not looked at
    Writes  OUT/shard-*.parquet: id, embedding, six scores, token counts, the decoded text
    Stopped half-way, the same command goes on at the next shard.
    """
    from edjax.score import score as run_score

    _use_compilation_cache()
    features = run_score(_pool(pool, text_column, id_column, skip_bad_lines), out=out, **settings)
    click.echo(f"{len(features)} prompts x {features.embeddings.shape[1]} features in {out}")
    click.echo(f"next: edjax select {out} --pool {shlex.quote(pool)} --strategy k_center --budget 100 --out DIR")


@cli.command()
@click.argument("features", type=click.Path(path_type=Path))
@click.option("--pool", help="The pool that was scored; taken from FEATURES where it is not given.")
@click.option("--strategy", required=True, help="random, mean_entropy, k_center, ...; `edjax strategies` lists them.")
@click.option("--budget", type=int, required=True, help="How many rows to choose.")
@click.option("--out", type=click.Path(path_type=Path), help="Directory to write.")
@click.option("--seed", default=0, show_default=True, help="For the strategy random.")
@click.option("--normalise", default="l2", show_default=True, help="l2 (centred, length 1), centre or none.")
@click.option("--allow-fewer", is_flag=True, help="Take all rows where the budget is larger than the pool.")
@click.option("--drop-invalid", is_flag=True, help="Leave rows with NaN or infinite features out.")
@click.option(
    "--memory",
    type=Bytes(),
    default="4GiB",
    show_default=True,
    help="Where k_center and d_optimal would take more, they read the embeddings from disk.",
)
@click.option("--dry-run", is_flag=True, help="Say what it would cost, and write nothing.")
@OVERWRITE
@pool_options
def select(
    features: Path,
    pool: str | None,
    out: Path | None,
    memory: int,
    dry_run: bool,
    overwrite: bool,
    text_column: str | None,
    id_column: str,
    skip_bad_lines: bool,
    **settings: Any,
) -> None:
    """Choose the rows worth labelling.

    \b
    Reads   FEATURES: a directory of `edjax score`, or a Parquet file with id and embedding; and the pool
    Writes  OUT/selected.jsonl: the chosen rows untouched, in the order taken
            OUT/selection.csv: order, id, row, gain and every score
    """
    from edjax.errors import UsageError
    from edjax.features import read_features, survey
    from edjax.select import forecast, stream_above, streams, write_selection
    from edjax.select import select as run_select
    from edjax.store import read_manifest

    strategy = settings["strategy"]
    if dry_run:
        click.echo(forecast(survey(features), strategy, settings["budget"], memory))
        return
    if out is None:
        raise click.UsageError("Missing option '--out'.", click.get_current_context())
    found = read_features(features, memory=stream_above(strategy, memory), scratch=out.parent)
    if pool is None:
        pool = read_manifest(features, "features").get("pool") if features.is_dir() else None
        if pool is None:
            raise UsageError(f"{features} does not say which pool it is of; name it with --pool")
    rows = _pool(pool, text_column, id_column, skip_bad_lines)
    if streams(found, strategy):
        size = f"{found.embeddings.nbytes / 1e9:.1f} GB"
        _note(f"too large for --memory: {strategy} reads the embeddings from a scratch file of {size} beside {out}")
    chosen = run_select(found, **settings)
    write_selection(chosen, found, rows, out, config=settings, overwrite=overwrite)
    if chosen.warning:
        _note(chosen.warning)
    click.echo(f"{len(chosen)} of {len(found)} rows by {chosen.strategy} in {chosen.seconds:.2f} s")
    click.echo(f"{out}/selected.jsonl")


@cli.command()
def strategies() -> None:
    """List the strategies: name, what it needs, what it does."""
    from edjax.strategies import STRATEGIES

    for name, s in STRATEGIES.items():
        needs = s.needs if s.needs in ("nothing", "embeddings") else "decoded tokens"
        click.echo(f"{name:20} needs {needs:16} {s.summary}")


def _finetune_options(f: Any) -> Any:
    import dataclasses

    from edjax.finetune import FinetuneConfig

    helps = {
        "num_train_epochs": "Passes over the rows.",
        "lr_scheduler_type": "cosine, linear or constant, after the warm-up.",
        "max_steps": "Updates in place of epochs, where above 0.",
        "per_device_train_batch_size": "Rows of a micro-batch on one device.",
        "gradient_accumulation_steps": "Micro-batches an update.",
        "assistant_only_loss": "Train every assistant turn; else the response, the last one, only.",
        "packing": "Lay several rows into one sequence; they do not see each other.",
        "group_by_length": "Batch rows of like length.",
        "gradient_checkpointing": "Recompute activations in the backward pass: less memory.",
        "dtype": "float32 or bfloat16, of the base model; adapters are float32.",
        "template": "auto, chat (the model's chat template) or plain.",
        "validation_split": "Share of ROWS held out for validation.",
        "eval_steps": "Updates between validations; 0 for the end of every epoch.",
        "early_stopping_patience": "Validations without a gain before training stops; 0 for never.",
        "early_stopping_threshold": "How much lower a validation loss must be to be a gain.",
        "load_best_model_at_end": "With validation, write the best adapter, not the last.",
        "mesh": "Devices: data=8 shares out rows, fsdp=8 the weights too, tensor=2 splits layers; -1: the rest.",
        "save_steps": "Steps between checkpoints; 0 for none.",
        "lora_target_modules": "Comma-separated projections, or all-linear.",
        "use_rslora": "Scale the adapter by alpha / sqrt(r) in place of alpha / r.",
        "max_length": "Most tokens of prompt and response together.",
        "quantize": "Keep the base model's projections in int8 or nf4; needs pip install 'edjax[quant]'.",
    }
    for field in reversed(dataclasses.fields(FinetuneConfig)):
        flag, about = "--" + field.name.replace("_", "-"), helps.get(field.name)
        if isinstance(field.default, bool):
            switch = f"{flag}/--no-{flag[2:]}"
            f = click.option(switch, field.name, default=field.default, show_default=True, help=about)(f)
        else:
            default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
            f = click.option(flag, default=default, show_default=True, help=about)(f)
    return f


@cli.command()
@click.argument("rows")
@MODEL
@OUT
@click.option("--validation", help="Rows to validate on while training; any pool format.")
@_finetune_options
@OVERWRITE
@pool_options
def finetune(
    rows: str,
    model: str,
    out: Path,
    validation: str | None,
    overwrite: bool,
    text_column: str | None,
    id_column: str,
    skip_bad_lines: bool,
    **settings: Any,
) -> None:
    """Train a LoRA adapter on the responses of ROWS.

    \b
    Reads   ROWS: any pool format, every row with a response
    Writes  OUT/adapter_model.safetensors and adapter_config.json (PEFT format), OUT/metrics.jsonl
            With validation: the adapter of the lowest validation loss, and OUT/last/, that of the last step
    Stopped half-way, the same command goes on from the last checkpoint and ends in the same adapter.
    """
    from edjax.finetune import FinetuneConfig
    from edjax.finetune import finetune as run_finetune

    _use_compilation_cache()
    settings["lora_target_modules"] = tuple(m.strip() for m in settings["lora_target_modules"].split(","))
    data = _pool(rows, text_column, id_column, skip_bad_lines)
    held = None if validation is None else _pool(validation, text_column, id_column, skip_bad_lines)
    config = FinetuneConfig(**settings)
    done = run_finetune(data, model, out=out, config=config, validation=held, overwrite=overwrite)
    click.echo(f"{done.steps} steps on {len(data)} rows in {done.seconds:.1f} s, last loss {done.train_loss:.4f}")
    if done.validation_loss is not None:
        click.echo(f"lowest validation loss {done.validation_loss:.4f}, after step {done.best_step}")
    click.echo(f"adapter in {out}")


@cli.command()
@click.argument("rows")
@MODEL
@click.option("--adapter", type=click.Path(path_type=Path), help="PEFT adapter directory to put on the model.")
@click.option("--out", type=click.Path(path_type=Path), help="Directory for scores.json and rows.jsonl.")
@click.option("--metrics", default="response_loss,exact_match,rouge_l,choice_accuracy", show_default=True)
@click.option("--max-new-tokens", default=32, show_default=True, help="Longest greedy answer.")
@TEMPLATE
@MAX_LENGTH
@click.option("--batch-size", default=16, show_default=True)
@DTYPE
@click.option("--quantize", default="none", show_default=True, help="Keep the model's projections in int8 or nf4.")
@MESH
@OVERWRITE
@pool_options
def evaluate(
    rows: str, metrics: str, text_column: str | None, id_column: str, skip_bad_lines: bool, **settings: Any
) -> None:
    """Score the model's answers on ROWS, with or without an adapter.

    \b
    Reads   ROWS: any pool format, every row with a response; columns refs, answer and choices are used if there
    Writes  OUT/scores.json and OUT/rows.jsonl, if --out is given
    """
    from edjax.evaluate import evaluate as run_evaluate

    _use_compilation_cache()
    data = _pool(rows, text_column, id_column, skip_bad_lines)
    done = run_evaluate(data, metrics=tuple(m.strip() for m in metrics.split(",") if m.strip()), **settings)
    for name, value in done.scores.items():
        click.echo(f"{name:16} {value:8.4f}  over {done.counts[name]} rows")


@cli.command()
@MODEL
@click.option("--adapter", type=click.Path(path_type=Path), required=True, help="PEFT adapter directory to fold in.")
@OUT
@DTYPE
@OVERWRITE
def merge(**settings: Any) -> None:
    """Fold an adapter into its base model and write a whole model.

    \b
    Reads   the model, and the adapter (PEFT format)
    Writes  OUT: config.json, safetensors and tokenizer in Hugging Face format, for `--model OUT` or transformers
    """
    from edjax.lm.merge import merge as run_merge

    out = run_merge(**settings)
    click.echo(f"merged model in {out}")


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), help="Directory to write, in place of the recipe's.")
@OVERWRITE
def run(recipe: Path, overrides: tuple[str, ...], out: Path | None, overwrite: bool) -> None:
    """Run RECIPE: strategies x budgets x seeds over one scored pool.

    \b
    Reads   RECIPE: flat YAML; OVERRIDES are key=value pairs on top of it
    Writes  OUT/results.json, OUT/report.html, and below OUT every stage's own artefact
    Cells that are done are not done again: stopped at any point, the same command finishes the rest.
    """
    from edjax.recipe import read_recipe

    _run(read_recipe(recipe, overrides), out, overwrite)


def _run(recipe: Any, out: Path | None, overwrite: bool) -> None:
    from edjax.run import run as run_recipe
    from edjax.table import results_table

    _use_compilation_cache()
    out = out or Path(recipe.out)
    results = run_recipe(recipe, out=out, command=shlex.join(["edjax", *sys.argv[1:]]), overwrite=overwrite)
    results_table(results)
    click.echo(f"\n{results['verdict']}")
    click.echo(f"page: {(out / 'report.html').resolve()}")


@cli.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("edjax-demo"), show_default=True)
@click.option("--seed", default=0, show_default=True, help="Seed of the generated pool.")
@OVERWRITE
def demo(out: Path, seed: int, overwrite: bool) -> None:
    """Walk the whole road on a pool edjax makes itself: about five minutes on two CPU cores.

    \b
    Writes  OUT/data (pool.jsonl, eval.jsonl) and OUT/run (results.json, report.html, every artefact)
    """
    from edjax.demo import recipe

    _run(recipe(out, seed), out / "run", overwrite)


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path))
def report(directory: Path) -> None:
    """Draw the page of a finished run again: DIRECTORY/results.json -> DIRECTORY/report.html."""
    from edjax import report as page
    from edjax.errors import DataError
    from edjax.store import read_json

    if not (directory / "results.json").exists():
        raise DataError(f"{directory} holds no results.json; `edjax run RECIPE --out {directory}` makes it")
    click.echo(page.write(read_json(directory / "results.json"), directory / "report.html"))


def _use_compilation_cache() -> None:
    """Keep compiled programs between processes; a second start is then much faster."""
    import jax

    from edjax.lm.smollm2 import cache_dir

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


class _Terminated(BaseException):
    pass


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _Terminated

    old = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and exit: 0 done, 2 usage, 3 bad data, 4 locked, 5 environment, 130 / 143 stopped."""
    argv = sys.argv[1:] if argv is None else argv
    debug = "--debug" in argv
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that torch is missing is no news: none is used
    code = 0
    try:
        with _signals():
            cli.main(args=argv, prog_name="edjax", standalone_mode=False)
    except click.exceptions.Exit as e:
        code = e.exit_code
    except click.UsageError as e:
        hint = f" (see: {e.ctx.command_path} --help)" if e.ctx else ""
        code = _fail(f"{e.format_message()}{hint}", 2)
    except click.ClickException as e:
        code = _fail(e.format_message(), 2)
    except EdjaxError as e:
        if debug:
            raise
        code = _fail(" ".join(str(e).split()), e.exit_code)
    except (KeyboardInterrupt, click.Abort):
        code = _fail("interrupted; the same command goes on from here", 130)
    except _Terminated:
        code = _fail("terminated; the same command goes on from here", 143)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as e:
        if debug:
            raise
        code = _fail(f"unexpected {type(e).__name__}: {' '.join(str(e).split())[:500]}; --debug shows where", 1)
    sys.exit(code)


def _fail(text: str, code: int) -> int:
    click.echo(f"edjax: error: {text}", err=True)
    return code
