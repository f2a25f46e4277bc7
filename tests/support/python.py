"""A Python index for tests: real wheels and sdists, pages in JSON and HTML as servers give them, and what installs."""

import asyncio
import base64
import csv
import hashlib
import io
import json
import os
import sys
import tarfile
import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import aiohttp

from firthd.clock import Clock
from firthd.config import Settings
from firthd.families.python.names import normalised
from tests.support.conda import ChannelFolder
from tests.support.daemon import in_process_daemon
from tests.support.upstream import Fault, FaultyUpstream, Seen
from tests.support.world import World

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"
UPLOADED = "2024-03-01T12:00:00.000000Z"


def metadata_of(
    name: str,
    version: str,
    needs: Sequence[str] = (),
    requires_python: str | None = None,
    says: Sequence[str] = (),
) -> bytes:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *says]
    lines += [f"Requires-Dist: {need}" for need in needs]
    lines += [f"Requires-Python: {requires_python}"] if requires_python else []
    return ("\n".join(lines) + "\n\n").encode()


def wheel(
    name: str,
    version: str,
    *,
    needs: Sequence[str] = (),
    tag: str = "py3-none-any",
    body: str = "",
    says: Sequence[str] = (),
) -> bytes:
    """Return a wheel that installs one module, which holds its version and `body`."""
    module = name.replace("-", "_").replace(".", "_").lower()
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": f"VERSION = {version!r}\nBODY = {body!r}\n".encode(),
        f"{info}/METADATA": metadata_of(name, version, needs, says=says),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    record = io.StringIO()
    lines = csv.writer(record, lineterminator="\n")
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.writerow([path, f"sha256={digest}", len(content)])
    lines.writerow([f"{info}/RECORD", "", ""])
    files[f"{info}/RECORD"] = record.getvalue().encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), content)
    return packed.getvalue()


def sdist(name: str, version: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        content = metadata_of(name, version)
        entry = tarfile.TarInfo(f"{name}-{version}/PKG-INFO")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@dataclass(kw_only=True)
class File:
    """A file of a project, and what the index says of it."""

    filename: str
    content: bytes
    said: dict[str, Any] = field(default_factory=dict)
    metadata: bytes | None = None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


class PythonIndex:
    """Projects and their files, as an index server or a folder has them.

    `serials`: the list says how often each project has changed. `plain`: HTML only, `bare`: without digests.
    """

    def __init__(self, *, serials: bool = True, plain: bool = False, bare: bool = False, core: bool = True) -> None:
        self.projects: dict[str, list[File]] = {}
        self.spelled: dict[str, str] = {}
        self.serial: dict[str, int] = {}
        self.status: dict[str, dict[str, str]] = {}
        self.unlisted: set[str] = set()  # projects that the list lacks, whose pages are there
        self.serials, self.plain, self.bare, self.core = serials, plain, bare, core
        self.files_at = "../../files"  # relative to a project's page, or absolute

    def add(
        self,
        name: str,
        version: str,
        *,
        needs: Sequence[str] = (),
        kind: str = "wheel",
        tag: str = "py3-none-any",
        body: str = "",
        says: Sequence[str] = (),
        **said: Any,
    ) -> File:
        """Add a file; a project's first one says how its name is spelled."""
        project = normalised(name)
        module = name.replace("-", "_").replace(".", "_").lower()
        if kind == "wheel":
            content = wheel(name, version, needs=needs, tag=tag, body=body, says=says)
            file = File(filename=f"{module}-{version}-{tag}.whl", content=content)
            file.metadata = metadata_of(name, version, needs, says=says) if self.core else None
        else:
            file = File(filename=f"{name}-{version}.tar.gz", content=sdist(name, version))
        file.said = {"upload-time": UPLOADED, **said}
        self.projects.setdefault(project, []).append(file)
        self.spelled.setdefault(project, name)
        self.touch(project)
        return file

    def touch(self, project: str) -> None:
        """Let the list say that a project has changed."""
        self.serial[project] = max(self.serial.values(), default=0) + 1

    # --- pages

    def entry(self, project: str, file: File) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "filename": file.filename,
            "url": f"{self.files_at}/{project}/{file.filename}",
            "hashes": {} if self.bare else {"sha256": file.sha256},
            "size": len(file.content),
        }
        if file.metadata is not None:
            told = True if self.bare else {"sha256": hashlib.sha256(file.metadata).hexdigest()}
            entry["core-metadata"] = told
        return entry | file.said

    def list_json(self) -> bytes:
        projects = [
            {"name": self.spelled[name]} | ({"_last-serial": self.serial[name]} if self.serials else {})
            for name in self.projects
            if name not in self.unlisted
        ]
        return json.dumps({"meta": {"api-version": "1.4"}, "projects": projects}).encode()

    def list_html(self) -> bytes:
        links = [
            f'<a href="{name}/">{escape(self.spelled[name])}</a>' for name in self.projects if name not in self.unlisted
        ]
        return ("<!DOCTYPE html><title>Simple index</title>" + "\n".join(links)).encode()

    def page_json(self, project: str) -> bytes:
        files = [self.entry(project, file) for file in self.projects[project]]
        meta: dict[str, Any] = {"api-version": "1.4"}
        if self.serials:
            meta["_last-serial"] = self.serial[project]
        page: dict[str, Any] = {"meta": meta, "name": project, "files": files, "versions": []}
        if project in self.status:
            page["project-status"] = self.status[project]
        return json.dumps(page).encode()

    def page_html(self, project: str) -> bytes:
        lines = [f"<!DOCTYPE html><title>Links for {project}</title>"]
        for file in self.projects[project]:
            entry = self.entry(project, file)
            attributes = ""
            if entry.get("requires-python"):
                attributes += f' data-requires-python="{escape(entry["requires-python"])}"'
            if entry.get("yanked"):
                attributes += f' data-yanked="{escape(str(entry["yanked"]))}"'
            told = entry.get("core-metadata")
            if told:
                attributes += f' data-core-metadata="{"true" if told is True else "sha256=" + told["sha256"]}"'
            fragment = "" if self.bare else f"#sha256={file.sha256}"
            lines.append(f'<a href="{escape(entry["url"])}{fragment}"{attributes}>{escape(file.filename)}</a>')
        return "\n".join(lines).encode()

    # --- as a server, as a folder

    def answer(self, seen: Seen) -> bytes | Fault | None:
        """Say what stands at a path, as a server does that knows both forms."""
        path = seen.path
        if path == "simple/" or (path.startswith("simple/") and path.endswith("/")):
            project = path.removeprefix("simple/").strip("/")
            if project and project not in self.projects:
                if normalised(project) in self.projects and project != normalised(project):
                    return Fault(redirect=f"/simple/{normalised(project)}/", status=301)
                return None
            as_json = JSON in seen.headers.get("accept", "") and not self.plain
            if project:
                body = self.page_json(project) if as_json else self.page_html(project)
            else:
                body = self.list_json() if as_json else self.list_html()
            return _page(seen, body, JSON if as_json else "text/html")
        if path.startswith("files/"):
            _, project, filename = path.split("/", 2)
            for file in self.projects.get(project, ()):
                if file.filename == filename:
                    return file.content
                if f"{file.filename}.metadata" == filename:
                    return file.metadata
        return None

    def serve(self, upstream: FaultyUpstream) -> None:
        upstream.route("simple/*", self.answer)
        upstream.route("files/*", self.answer)

    def write(self, folder: Path) -> None:
        """Write it as files below a folder."""
        for project, files in self.projects.items():
            page = folder / "simple" / project / ("index.html" if self.plain else "index.json")
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_bytes(self.page_html(project) if self.plain else self.page_json(project))
            for file in files:
                place = folder / "files" / project / file.filename
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(file.content)
                if file.metadata is not None:
                    place.with_name(f"{file.filename}.metadata").write_bytes(file.metadata)
        listed = folder / "simple" / ("index.html" if self.plain else "index.json")
        listed.write_bytes(self.list_html() if self.plain else self.list_json())


def _page(seen: Seen, body: bytes, kind: str) -> bytes | Fault:
    etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    if seen.headers.get("if-none-match") == etag:
        return Fault(status=304, headers={"ETag": etag})
    return Fault(status=200, body=body, headers={"Content-Type": kind, "ETag": etag})


def sample_index(**kinds: Any) -> PythonIndex:
    """Return an index of three projects: Alpha.One needs beta, which has a newer version; gamma is a source."""
    index = PythonIndex(**kinds)
    index.add("Alpha.One", "1.0", needs=["beta>=1.0"])
    index.add("beta", "1.0")
    index.add("beta", "2.0", **{"upload-time": "2025-06-01T00:00:00Z"})
    index.add("gamma", "0.1", kind="sdist", **{"requires-python": ">=3.8"})
    return index


class PythonWorld(World, frozen=True, kw_only=True):
    """A world whose source is a Python index."""

    index: PythonIndex

    async def python(self, mode: str = "active", name: str = "p", **params: Any) -> Any:
        fields = {"channel": "main", "type": "python", "source": f"{self.upstream.url}/simple"} | params
        return (await self.call("mirror.create", name=name, mode=mode, **fields)).mirror

    async def page(self, project: str, *, at: str = "/repo/main", accept: str = JSON) -> Any:
        """Return a project's page, decoded where it is JSON; its status where it is not there."""
        reply = await self.get(f"{at}/simple/{project}/", {"Accept": accept})
        if reply.status != 200:
            return reply.status
        return json.loads(reply.body) if accept == JSON else reply.body.decode()

    async def files(self, project: str, *, at: str = "/repo/main") -> list[str]:
        page = await self.page(project, at=at)
        assert isinstance(page, dict), page
        return [file["filename"] for file in page["files"]]


@asynccontextmanager
async def python_world(
    folder: Path,
    index: PythonIndex | None = None,
    *,
    settings: Settings | None = None,
    clock: Clock | None = None,
    upstream: FaultyUpstream | None = None,
) -> AsyncIterator[PythonWorld]:
    index = index or sample_index()
    async with (
        upstream or FaultyUpstream() as source,
        in_process_daemon(folder, settings=settings, clock=clock) as daemon,
        aiohttp.ClientSession(auto_decompress=False, headers={"Accept-Encoding": "identity"}) as http,
    ):
        index.serve(source)
        await daemon.client.call("channel.create", name="main")
        yield PythonWorld(
            upstream=source, source=ChannelFolder(folder / "unused"), daemon=daemon, http=http, index=index
        )


class Installer:
    """pip and uv, each with an environment and a cache of its own, and nothing of this machine's settings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "UV_NO_CONFIG": "1",
            "UV_CACHE_DIR": str(folder / "uv-cache"),
            "UV_PYTHON_DOWNLOADS": "never",
        }

    async def pip(self, index: str, *args: str) -> tuple[int, str]:
        """Install into a fresh folder; return the exit status and all that was said."""
        return await self._run(
            sys.executable, "-m", "pip", "install", "--no-cache-dir", "--index-url", index,
            "--target", str(self.target), "--upgrade", *args,
        )  # fmt: skip

    async def uv(self, index: str, *args: str) -> tuple[int, str]:
        program = str(Path(sys.executable).with_name("uv"))
        return await self._run(
            program, "pip", "install", "--python", sys.executable, "--default-index", index,
            "--target", str(self.target), "--upgrade", *args,
        )  # fmt: skip

    @property
    def target(self) -> Path:
        return self._folder / "site"

    def version(self, module: str) -> str | None:
        """Return the version that an installed module of this index holds."""
        file = self.target / f"{module}.py"
        return file.read_text().split("'")[1] if file.is_file() else None

    async def _run(self, *command: str) -> tuple[int, str]:
        self._folder.mkdir(parents=True, exist_ok=True)
        process = await asyncio.create_subprocess_exec(
            *command,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            stdin=asyncio.subprocess.DEVNULL,
        )
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return process.returncode, said.decode()
