"""A state database for the index tasks, made from the migrations, and what the daemon does between two tasks."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firthd.families.base import COLUMNS, Spool
from firthd.families.conda.family import CONDA
from firthd.index.messages import (
    FamilyContent,
    PreviousFile,
    ReadParams,
    ReadResult,
    RenderParams,
    RenderResult,
)
from firthd.index.read import read_task
from firthd.index.render import render_task
from firthd.index.set_hash import EMPTY
from firthd.store.columns import in_the_row

MIGRATIONS = Path(__file__).parents[2] / "daemon" / "firthd" / "store" / "migrations"
CHANNEL = 1

_NAMES = ", ".join(in_the_row(COLUMNS))
COPY_ARTIFACTS = f"""
INSERT INTO artifact (id, channel_id, mirror_id, family, part, {_NAMES}, added_set)
SELECT :base + ordinal, 1, :mirror, family, part, {_NAMES}, :set
FROM run."add" WHERE NOT failed ORDER BY ordinal
"""


class CondaState:
    """A channel's state in a folder. Reads and renders happen in this process, not in a worker."""

    def __init__(self, folder: Path, mirrors: int = 1) -> None:
        self.folder = folder
        self.db = folder / "state.db"
        self.generation = 0
        self.proven_above = 0  # rows with ids up to this come from a state in which nobody had proven them
        self.published: dict[str, PreviousFile] = {}
        self.content: FamilyContent | None = FamilyContent(state=EMPTY, artifacts=0, packages=0, bytes=0)
        self._serial = 0
        self._pending: list[int] = []
        with self.connect() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            for migration in sorted(MIGRATIONS.glob("*.sql")):
                connection.executescript(migration.read_text())
            connection.execute(
                "INSERT INTO channel (id, name, privacy, created_at, updated_at) VALUES (1, 'main', 'public', 0, 0)"
            )
        for number in range(1, mirrors + 1):
            self.execute(
                "INSERT INTO mirror (id, channel_id, name, type, mode, source, schedule, on_upstream_removal,"
                " scheduled_from, created_at, updated_at)"
                " VALUES (?, 1, ?, 'conda', 'passive', ?, 'daily', 'follow', 0, 0, 0)",
                (number, f"mirror {number}", f"https://example.org/{number}"),
            )

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.db)

    def execute(self, sql: str, params: tuple[Any, ...] = ()) -> list[Any]:
        connection = self.connect()
        try:
            with connection:
                return connection.execute(sql, params).fetchall()
        finally:
            connection.close()

    def next_path(self, name: str) -> Path:
        self._serial += 1
        return self.folder / f"{name}-{self._serial}"

    def deliver(self, sha256: str, size: int = 100) -> None:
        """Say that the channel has been given a file."""
        self.execute("INSERT INTO blob VALUES (?, ?, 0)", (bytes.fromhex(sha256), size))
        self.execute("INSERT INTO delivered VALUES (?, ?)", (CHANNEL, bytes.fromhex(sha256)))

    # --- read

    def read_params(self, parts: Mapping[str, Path | None], *, mirror: int = 1, **options: Any) -> ReadParams:
        return ReadParams(
            formats=CONDA.formats,
            state_db=str(self.db),
            run_file=str(self.next_path("run")),
            channel_id=CHANNEL,
            mirror_id=mirror,
            spools=[
                Spool(part=subdir, file=str(path) if path else None, encoding=encoding_of(path))
                for subdir, path in parts.items()
            ],
            **options,
        )

    def read(self, parts: Mapping[str, Path | None], *, mirror: int = 1, **options: Any) -> tuple[ReadResult, Path]:
        """Read spool files; return the result and the run file."""
        params = self.read_params(parts, mirror=mirror, **options)
        return read_task(params, lambda progress: None), Path(params.run_file)

    def apply(self, run_file: Path, *, mirror: int = 1, state: str = "finished") -> int:
        """Copy a run file into the state as one change set; return its id."""
        connection = self.connect()
        connection.execute("ATTACH ? AS run", (str(run_file),))
        try:
            with connection:
                cursor = connection.execute(
                    "INSERT INTO change_set (channel_id, mirror_id, cause, state, created_at)"
                    " VALUES (1, ?, 'run', ?, 0)",
                    (mirror, state),
                )
                change_set = int(cursor.lastrowid or 0)
                base = connection.execute("SELECT coalesce(max(id), 0) FROM artifact").fetchone()[0]
                connection.execute(
                    "UPDATE artifact SET closed_set = ? WHERE id IN"
                    ' (SELECT artifact_id FROM run."close" WHERE NOT skipped)',
                    (change_set,),
                )
                connection.execute(COPY_ARTIFACTS, {"base": base, "mirror": mirror, "set": change_set})
                connection.execute(
                    'INSERT INTO artifact_record SELECT ? + ordinal, raw FROM run."add" WHERE NOT failed', (base,)
                )
                connection.execute(
                    "INSERT INTO offered (channel_id, mirror_id, family, part, name, added_set)"
                    " SELECT 1, ?, family, part, name, ? FROM run.offer WHERE begins ON CONFLICT DO NOTHING",
                    (mirror, change_set),
                )
                connection.execute(
                    "UPDATE offered SET closed_set = ? WHERE closed_set IS NULL AND mirror_id = ? AND (part, name) IN"
                    " (SELECT part, name FROM run.offer WHERE NOT begins)",
                    (change_set, mirror),
                )
        finally:
            connection.close()
        if state == "finished":
            self._pending.append(change_set)
        return change_set

    def take(self, parts: Mapping[str, Path | None], *, mirror: int = 1, **options: Any) -> ReadResult:
        """Read and apply."""
        result, run_file = self.read(parts, mirror=mirror, **options)
        self.apply(run_file, mirror=mirror)
        return result

    # --- render

    def render_params(self, *, shows: int | None = None, full: bool = False) -> RenderParams:
        out_dir = self.next_path("out")
        out_dir.mkdir()
        return RenderParams(
            formats=CONDA.formats,
            state_db=str(self.db),
            run_file=str(self.next_path("render")),
            out_dir=str(out_dir),
            channel_id=CHANNEL,
            number=self.generation + 1,
            shows=self.generation if shows is None else shows,
            change_sets=self._pending if shows is None else [],
            before=self.content,
            full=full or shows is not None,
            proven_above=self.proven_above,
            previous=self.published,
        )

    def render(self, *, shows: int | None = None, full: bool = False) -> tuple[RenderResult, Path]:
        """Render the next generation; return the result and the run file."""
        params = self.render_params(shows=shows, full=full)
        return render_task(params, lambda progress: None), Path(params.run_file)

    def publish(self, *, shows: int | None = None, full: bool = False) -> RenderResult:
        """Render and switch over to what was rendered."""
        result, run_file = self.render(shows=shows, full=full)
        self.switch(result, run_file, pending=shows is None)
        return result

    def switch(self, result: RenderResult, run_file: Path, *, pending: bool = True) -> None:
        """Make what was rendered the published generation, with the pending change sets."""
        self.generation += 1
        connection = self.connect()
        connection.execute("ATTACH ? AS run", (str(run_file),))
        try:
            with connection:
                if pending:
                    for change_set in self._pending:
                        connection.execute(
                            "UPDATE change_set SET state = 'published', number = ? WHERE id = ?",
                            (self.generation, change_set),
                        )
                    self._pending = []
                connection.execute(
                    "UPDATE object SET until = ? WHERE until IS NULL AND path IN"
                    " (SELECT path FROM run.object r WHERE r.sha256 IS NOT object.sha256)",
                    (self.generation,),
                )
                connection.execute(
                    "INSERT INTO object (channel_id, family, path, since, sha256, size, file, offset, lasting)"
                    " SELECT 1, 'conda', path, ?, sha256, size, file, offset, lasting FROM run.object r"
                    " WHERE sha256 IS NOT NULL AND NOT EXISTS (SELECT 1 FROM object o WHERE o.path = r.path"
                    " AND o.until IS NULL)",
                    (self.generation,),
                )
                connection.execute(
                    "INSERT INTO package (channel_id, family, name, number, version, versions, files, bytes, platforms,"
                    " depends, digest, hidden) SELECT 1, family, name, ?, version, versions, files, bytes, platforms,"
                    " depends, digest, hidden"
                    " FROM run.package",
                    (self.generation,),
                )
        finally:
            connection.close()
        self.content = result.content
        self.published = self.published | {file.path: PreviousFile(file.file, file.sha256) for file in result.files}

    def packages(self) -> dict[str, tuple[Any, ...]]:
        """Return name -> (version, versions, files, platforms, depends) as in force, without those that are gone."""
        rows = self.execute(
            "SELECT name, version, versions, files, platforms, depends, max(number) FROM package GROUP BY name"
        )
        return {row[0]: row[1:6] for row in rows if row[3]}


def encoding_of(path: Path | None) -> str:
    return "zst" if path is not None and path.suffix == ".zst" else "json"


def run_rows(run_file: Path, table: str, columns: str) -> list[tuple[Any, ...]]:
    """Return rows of a run file's table, in its own order."""
    connection = sqlite3.connect(run_file)
    try:
        return connection.execute(f'SELECT {columns} FROM "{table}"').fetchall()
    finally:
        connection.close()
