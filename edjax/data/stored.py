"""Rows that are stored in columns: Parquet, a directory of `datasets`, a hub id."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edjax.data.rows import Row
from edjax.keep.errors import DataError, EnvError, UsageError


def parquet_rows(origin: Path | bytes, name: str, limit: int | None) -> Iterator[Row]:
    """Rows of a Parquet file, or of its bytes; name: of it, for messages."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(io.BytesIO(origin) if isinstance(origin, bytes) else origin) as file:
            for batch in file.iter_batches(batch_size=min(limit or 8192, 8192)):
                for record in _records(batch):
                    number += 1
                    yield Row(number, None, record)
    except (pa.ArrowException, OSError) as e:
        raise DataError(f"{name}: not a readable Parquet file ({_first_line(e)}); fetch or write it again") from e


def _records(batch: Any) -> list[dict[str, Any]]:
    """The rows of an Arrow batch or table; a number of 32 bits is the shortest that was meant: 0.1, not its neighbour
    0.10000000149011612 in 64."""
    import pyarrow.types as t

    records: list[dict[str, Any]] = batch.to_pylist()
    for i, field in enumerate(batch.schema):
        if t.is_float32(field.type) or t.is_float16(field.type):
            for record, value in zip(records, batch.column(i).to_numpy(zero_copy_only=False), strict=True):
                if record[field.name] is not None:
                    record[field.name] = float(str(value))
    return records


# The datasets library


def dataset_rows(data: Any, limit: int | None) -> Iterator[Row]:
    """Rows as they are stored: images and sounds as their bytes, for which no decoder is needed."""
    if limit is not None:
        data = data.select(range(min(limit, len(data))))
    number = 0
    for batch in data.with_format("arrow").iter(8192):
        for record in _records(batch):
            number += 1
            yield Row(number, None, record)


def is_saved(path: Path) -> bool:
    """Whether `datasets` saved a directory."""
    return any((path / name).exists() for name in ("state.json", "dataset_dict.json"))


def saved(path: Path, split: str | None) -> Any:
    """What `datasets` saved in a directory, of several splits the one that is named."""
    import datasets

    try:
        data = datasets.load_from_disk(str(path))
    except Exception as e:  # the library raises what its parts raise
        raise DataError(f"{path}: `datasets` cannot read it ({_first_line(e)}); save it again") from e
    if not isinstance(data, datasets.DatasetDict):
        if split is not None:
            raise UsageError(f"{path} holds one data set without splits; leave out --split {split}")
        return data
    names = list(data)
    if split is None and len(names) == 1:
        split = names[0]
    if split not in names:
        what = "choose one with --split" if split is None else f"there is no {split!r}"
        what += " (in a recipe: pool_split, evaluation_split)"
        raise UsageError(f"{path} holds the splits {', '.join(names)}; {what}")
    return data[split]


def hub(source: str, split: str | None, revision: str | None) -> Any:
    """A data set of the hub: `org/name`, or `org/name:config`."""
    import datasets

    name, _, config = source.partition(":")
    try:
        further = {} if revision is None else {"revision": revision}
        return datasets.load_dataset(name, config or None, split=split or "train", **further)
    except datasets.exceptions.DatasetNotFoundError as e:
        raise DataError(f"{name}: no such file here, and no such data set on the hub ({_first_line(e)})") from e
    except ValueError as e:  # an unknown split or configuration: the library names those there are
        raise DataError(f"{source}: {_first_line(e)}; choose with --split NAME or {name}:CONFIG") from e
    except Exception as e:
        raise EnvError(
            f"cannot fetch {name} from the hub ({_first_line(e)}); check the network and HF_HUB_OFFLINE"
        ) from e


def _first_line(e: BaseException) -> str:
    text = " ".join(str(e).split())
    return text if len(text) <= 200 else text[:197] + "..."
