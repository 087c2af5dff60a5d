"""Records on disk: Parquet files that are written as pictures are done, each whole or not at all.

What is done is what the parts say: there is no other state that could differ from it.
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pyarrow.parquet
from pyarrow import ArrowException

from tf_groupvit.annotation.records import Record, records_in, table_of
from tf_groupvit.errors import InputError, one_line
from tf_groupvit.storage import Output

FOLDER = "records"
ROWS = 64  # records that are in memory at a time when all are read


class Parts:
    """The parts below an output: ``records/part-00000-<hash>.parquet``, in the order of writing."""

    def __init__(self, output: Output) -> None:
        self.output = output

    def names(self) -> list[str]:
        """The parts that there are."""
        found = self.output.names(FOLDER)
        return [name for name in found if name.startswith("part-") and name.endswith(".parquet")]

    def write(self, records: Sequence[Record], number: int | None = None) -> str:
        """Write a part, behind those that there are unless it has a number; returns its name.

        The same pictures under the same number have the same name: they replace each other.
        """
        ids = "\n".join(record.id for record in records)
        number = self.next_number() if number is None else number
        name = f"part-{number:05}-{hashlib.sha256(ids.encode()).hexdigest()[:12]}.parquet"
        self._write(name, records)
        return name

    def next_number(self) -> int:
        """The number behind those of the parts that there are."""
        numbers = [name.split("-")[1] for name in self.names()]
        return 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)

    def _write(self, name: str, records: Sequence[Record]) -> None:
        content = io.BytesIO()
        pyarrow.parquet.write_table(table_of(records), content, compression="zstd")
        self.output.write(f"{FOLDER}/{name}", content.getvalue())

    def ids(self) -> Iterator[tuple[str, bool]]:
        """The id of each record, and whether the picture failed."""
        for batch in self._batches(["id", "error"], 10_000):
            failed = batch["error"].is_valid().to_pylist()
            yield from zip(batch["id"].to_pylist(), failed, strict=True)

    def records(self) -> Iterator[Record]:
        """All records, part by part."""
        for batch in self._batches(None, ROWS):
            yield from records_in(batch)

    def forget_failures(self) -> int:
        """Take the records of pictures that failed out of the parts: returns how many."""
        return self._keep_only(self.names(), lambda record: record.error is None)

    def forget_repeated(self) -> int:
        """Take all records of a picture but the first out of the parts: returns how many."""
        seen, forgotten = set[int](), 0
        for name in self.names():
            ids = {
                hash(item_id)
                for batch in self._read(name, ["id"], 10_000)
                for item_id in batch["id"].to_pylist()
            }
            twice = ids & seen
            seen |= ids
            if twice:
                forgotten += self._keep_only([name], partial(_is_among, ids - twice))
        return forgotten

    def _keep_only(self, names: Sequence[str], is_kept: Callable[[Record], bool]) -> int:
        """Replace each part by one of the records that are kept, or delete it."""
        forgotten = 0
        for name in names:
            records = [one for batch in self._read(name, None, ROWS) for one in records_in(batch)]
            kept = [record for record in records if is_kept(record)]
            forgotten += len(records) - len(kept)
            if not kept:
                self.output.remove(f"{FOLDER}/{name}")
            elif len(kept) < len(records):
                self._write(name, kept)
        return forgotten

    def _batches(self, columns: list[str] | None, rows: int) -> Iterator[pyarrow.RecordBatch]:
        for name in self.names():
            yield from self._read(name, columns, rows)

    def _read(
        self, name: str, columns: list[str] | None, rows: int
    ) -> Iterator[pyarrow.RecordBatch]:
        path = f"{FOLDER}/{name}"
        with self.output.open(path) as file:
            try:
                part = pyarrow.parquet.ParquetFile(file)
                yield from part.iter_batches(rows, columns=columns)
            except (ArrowException, OSError) as error:
                raise InputError(
                    f"'{self.output.location}/{path}' is damaged ({one_line(error)}): delete it,"
                    " and its pictures are done again."
                ) from error


def _is_among(ids: set[int], record: Record) -> bool:
    """Whether the hash of a record's id is one of these."""
    return hash(record.id) in ids
