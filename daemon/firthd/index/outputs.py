"""The only place that takes the objects of an index from a family: files below a folder, slices of a pack."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from msgspec.structs import replace

from firthd.families.base import ShownPackage, Side
from firthd.index.messages import PreviousFile, RenderedFile
from firthd.index.owners import precedence
from firthd.index.packs import Pack, sync
from firthd.store import joined
from firthd.store.joined import Joint, Piece
from firthd.store.run_file import RunFile
from firthd.store.worker_objects import PackedAt
from firthd.store.worker_reads import WorkerState

T = TypeVar("T")

PACK = "slices.pack"
NOTES_MAX = 100
WRITE_BYTES = 1 << 18
"""At a time: for larger writes the kernel looks for larger pages, which took up to seven times as long."""


class Hashing:
    """A file that is hashed while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, content: bytes | memoryview, /) -> int:
        self._hash.update(content)
        self.size += len(content)
        if len(content) <= WRITE_BYTES:
            return self._file.write(content)
        with memoryview(content) as view:
            return sum(self._file.write(view[at : at + WRITE_BYTES]) for at in range(0, len(view), WRITE_BYTES))

    def flush(self) -> None:
        self._file.flush()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


class Outputs:
    """What one render leaves; objects may be opened by several threads at once, the rest is for one."""

    def __init__(
        self,
        folder: Path,
        previous: Mapping[str, PreviousFile],
        state: WorkerState,
        channel_id: int,
        family: str,
        sides: Sequence[Side] = (),
        packages: Callable[[], Mapping[str, ShownPackage]] = dict,
        *,
        lost: frozenset[bytes] = frozenset(),
        number: int = 0,
    ) -> None:
        self._number = number  # of the generation to be
        self._sides = sorted(sides, key=lambda side: (precedence(side.mirror_id), side.name))
        self._packages = packages
        self._folder = folder
        self._previous = previous
        self._state = state
        self._channel_id = channel_id
        self._family = family
        self._lost = lost
        self._pack = Pack(folder / PACK)
        self._new: dict[str, bytes] = {}  # path -> sha256 of slices that are in the pack
        self._elsewhere: dict[str, tuple[bytes, PackedAt]] = {}  # path -> sha256, where older packs hold it
        self._changing: dict[str, bytes] = {}  # path -> sha256 of what is in the pack, and may change
        self._ended: list[str] = []
        self.files: list[RenderedFile] = []
        self.notes: list[str] = []
        self.beside_rows = b""

    @cached_property
    def _packed_before(self) -> bool:
        """Whether any object of the family lies in a pack; asked when there is a slice, which few families have."""
        return self._state.packed(self._channel_id, self._family)

    def has(self, path: str) -> bool:
        """Tell whether the generation before serves this path."""
        return self._state.serves(self._channel_id, self._family, path)

    def below(self, folder: str) -> Iterator[str]:
        """Yield the paths that the generation before serves below a folder, whose name ends in a slash."""
        return self._state.in_force(self._channel_id, self._family, folder)

    def before(self, path: str) -> bytes | None:
        """Return what the generation before serves there; None when it is not to be had: it can be made again."""
        content = self._content(path)
        return content if content is not None and self._proven(path, content) else None

    def made_of(self, path: str, make: Callable[[bytes], T]) -> T | None:
        """Return what `make` makes of what `before` gives, which is proven meanwhile.

        `make` raises nothing, whatever the bytes are.
        """
        content = self._content(path)
        if content is None:
            return None
        with ThreadPoolExecutor(1) as prover:
            proof = prover.submit(self._proven, path, content)
            made = make(content)
            return made if proof.result() else None

    def _content(self, path: str) -> bytes | None:
        previous = self._previous.get(path)
        try:
            return None if previous is None else Path(previous.file).read_bytes()
        except OSError:
            return None

    def _proven(self, path: str, content: bytes) -> bool:
        return hashlib.sha256(content).hexdigest() == self._previous[path].sha256

    def readable(self) -> Iterable[str]:
        """Return the paths that `before` is good for."""
        return self._previous

    def shown_since(self, folder: str) -> dict[str, int]:
        """Return of each path below a folder the generation from which on it shows what it will; of small objects."""
        in_force = self._state.shown_since(self._channel_id, self._family, folder)
        found = {path: since for path, since, sha256 in in_force if self._changing.get(path, sha256) == sha256}
        for path in self._changing:
            if path.startswith(folder):
                found.setdefault(path, self._number)
        for path in self._ended:
            found.pop(path, None)
        return found

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open an object of its own for writing; it is durable and counts when the block ends without an error."""
        place = self._folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as file:
            hashing = Hashing(file)
            yield cast("BinaryIO", hashing)
            sync(file)
        self.files.append(RenderedFile(path=path, file=str(place), sha256=hashing.sha256, size=hashing.size))

    def slice(self, path: str, sha256: bytes, content: bytes) -> None:
        """Add a small object whose path holds its own digest; bytes that lie there already are not written again."""
        place = self._state.place(self._channel_id, self._family, path) if self._packed_before else None
        if place is None or place.pack in self._lost:
            self._pack.add(sha256, content)
            self._new[path] = sha256
        else:
            self._elsewhere[path] = (sha256, place)

    def put(self, path: str, content: bytes) -> None:
        """Add a small object that the next publication may change; it lies in the pack with others."""
        digest = hashlib.sha256(content).digest()
        self._pack.add(digest, content)
        self._changing[path] = digest

    def join(self, path: str, pieces: Iterable[Piece]) -> None:
        """Let a path show pieces one behind the other; of those that it showed before none is made or written."""
        before = self._joints(path)
        joints: list[Joint] = []
        for piece in pieces:
            joint = before.get(piece.mark)
            if joint is None:
                content = piece.make()
                packed = joined.pressed(content)
                joint = Joint(piece.mark, hashlib.sha256(packed).digest(), len(content))
                self.slice(joined.piece_path(path, joint.sha256), joint.sha256, packed)
            joints.append(joint)
        needed = {joined.piece_path(path, joint.sha256) for joint in joints}
        for old in set(self.below(f"{path}/")) - needed:
            self.end(old)
        with self.open(path) as file:
            file.write(joined.listed(joints))
        self.files[-1] = replace(self.files[-1], shows=sum(joint.size for joint in joints))

    def _joints(self, path: str) -> dict[bytes, Joint]:
        """Return the pieces that a path shows, by what they were made of: those that are there."""
        content = self.before(path)
        if content is None:
            return {}
        try:
            joints = joined.joints_of(content)
        except ValueError:
            return {}  # a release before wrote it as it is shown
        there = set(self.below(f"{path}/"))
        return {joint.mark: joint for joint in joints if joined.piece_path(path, joint.sha256) in there}

    def again(self, path: str, where: str) -> None:
        """Let a path that holds its own digest show the bytes that lie under another one."""
        found = self._state.packed_object(self._channel_id, self._family, where)
        if (
            found is not None
            and found[1].pack not in self._lost
            and path not in self._new
            and path not in self._elsewhere
        ):
            self._elsewhere[path] = found

    def end(self, path: str) -> None:
        """Let a path show nothing any more."""
        self._ended.append(path)

    def listed(self, sha256: bytes) -> None:
        """Say what the family shows beside its rows: a generation's digest is of that too."""
        self.beside_rows = sha256

    def note(self, text: str) -> None:
        """Tell an administrator something; when there is too much to tell, the rest is left out."""
        if len(self.notes) < NOTES_MAX:
            self.notes.append(text)

    def sides(self, beside: str) -> list[Side]:
        """Return the files beside a part, by the precedence of their mirrors."""
        return [side for side in self._sides if side.beside == beside]

    def sole_mirror(self) -> int | None:
        """Return the channel's mirror when it never had another one."""
        return self._state.sole_mirror(self._channel_id)

    def let_know(self, packages: Callable[[], Mapping[str, ShownPackage]]) -> None:
        """Take it from here what each package shows."""
        self._packages = packages

    def packages(self) -> Mapping[str, ShownPackage]:
        """Return each package that the generation to be shows."""
        return self._packages()

    def finish(self, run_file: RunFile) -> tuple[RenderedFile | None, int]:
        """Write every object into the run's file; return the pack, if there is one, and how many slices it holds."""
        pack = self._pack.finish()
        run_file.files((file.path, file.sha256, file.size) for file in self.files if file.shows is None)
        run_file.joined((file.path, file.sha256, file.shows) for file in self.files if file.shows is not None)
        run_file.packed((path, sha256, *self._pack.place(sha256)) for path, sha256 in self._new.items())
        run_file.packed((path, sha256, *place) for path, (sha256, place) in self._elsewhere.items())
        run_file.packed(
            ((path, sha256, *self._pack.place(sha256)) for path, sha256 in self._changing.items()), lasting=False
        )
        run_file.ended(self._ended)
        return pack, len(self._new)
