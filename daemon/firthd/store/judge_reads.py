"""The only place with the SQL that worker processes judge by: first sights, advisories, records of rows."""

from collections.abc import Iterator, Sequence

from firthd.store.worker_reads import WorkerState

ROWS_PER_QUERY = 500


class JudgeState(WorkerState):
    """The state database, read-only, with what policies ask of it."""

    def raws(self, ids: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Yield the records of rows as their source wrote them."""
        for start in range(0, len(ids), ROWS_PER_QUERY):
            some = ids[start : start + ROWS_PER_QUERY]
            marks = ", ".join("?" * len(some))
            rows = self._connection.execute(
                f"SELECT artifact_id, raw FROM artifact_record WHERE artifact_id IN ({marks})", tuple(some)
            )
            yield from ((row[0], bytes(row[1])) for row in rows.fetchall())

    def sights(self, mirror_id: int, part: str) -> dict[str, tuple[str, int]]:
        """Return file name -> digest and time of its first sight, of a mirror's part."""
        rows = self._connection.execute(
            "SELECT filename, digest, seen_at FROM first_sight WHERE mirror_id = ? AND part = ?", (mirror_id, part)
        )
        return {row[0]: (row[1], row[2]) for row in rows.fetchall()}

    def told(self, channel_id: int, part: str) -> dict[tuple[str, str, str], bytes]:
        """Return (version, file name, digest) of files that tell of releases -> what they tell, of a part."""
        rows = self._connection.execute(
            "SELECT version, filename, digest, document FROM release WHERE channel_id = ? AND part = ?",
            (channel_id, part),
        )
        return {(row[0], row[1], row[2]): bytes(row[3]) for row in rows.fetchall()}

    def advisories(self, family: str) -> list[bytes]:
        """Return the documents of all advisories that name a package of a family."""
        rows = self._connection.execute("SELECT document FROM advisory WHERE families LIKE ?", (f'%"{family}"%',))
        return [row[0] for row in rows.fetchall()]
