"""Programs that benchmarks measure beside Firth: nginx with the same bytes as files, and bandersnatch.

bandersnatch comes from the Python index into an environment of its own; nginx is the machine's, where it has one.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tests.support.python import JSON, UPLOADED, PythonIndex
from tests.support.upstream import Fault, FaultyUpstream, Seen

PLACE = Path(sys.prefix) / "outside-bench"
BANDERSNATCH = "bandersnatch"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

_NGINX = """daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    client_body_temp_path {folder}/temporary;
    proxy_temp_path {folder}/temporary;
    fastcgi_temp_path {folder}/temporary;
    uwsgi_temp_path {folder}/temporary;
    scgi_temp_path {folder}/temporary;
    default_type application/octet-stream;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/static;
    }}
}}
"""

_BANDERSNATCH = """[mirror]
directory = {folder}
master = {url}
allow-non-https = true
api-method = simple
json = false
hash-index = false
timeout = 30
workers = 10
verifiers = 2
stop-on-error = true
"""


def nginx(folder: Path, port: int, files: Mapping[str, bytes]) -> list[str] | None:
    """Write files and a configuration with one worker process; return the command, None without nginx."""
    if NGINX is None:
        return None
    static = folder / "static"
    static.mkdir(exist_ok=True)
    (folder / "temporary").mkdir()
    for name, content in files.items():
        (static / name).write_bytes(content)
    user = "user root;" if os.geteuid() == 0 else ""  # the folder is closed to others
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port, user=user))
    return [NGINX, "-c", str(folder / "nginx.conf"), "-e", str(folder / "nginx.log"), "-p", str(folder)]


def bandersnatch() -> Path:
    """Return the program, installed if need be. Raises CalledProcessError."""
    program = PLACE / "bin" / BANDERSNATCH
    if not program.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(PLACE)], check=True, capture_output=True)
        command = [str(PLACE / "bin" / "python"), "-m", "pip", "install", "-q", BANDERSNATCH]
        subprocess.run(command, check=True, capture_output=True)
    return program


def metadata_of(index: PythonIndex, url: str) -> dict[str, bytes]:
    """Return the JSON that bandersnatch reads of each project."""
    found = {}
    for project, files in index.projects.items():
        releases: dict[str, list[dict[str, Any]]] = {}
        for file in files:
            version = file.filename.split("-")[1]
            releases.setdefault(version, []).append(
                {
                    "filename": file.filename,
                    "url": f"{url}/packages/{project}/{file.filename}",
                    "digests": {"sha256": file.sha256, "md5": ""},
                    "size": len(file.content),
                    "packagetype": "bdist_wheel",
                    "requires_python": None,
                    "upload_time_iso_8601": UPLOADED,
                    "yanked": False,
                }
            )
        info = {"name": index.spelled[project], "version": "1.0"}
        body = {"info": info, "last_serial": index.serial[project], "releases": releases, "urls": []}
        found[project] = msgspec.json.encode(body)
    return found


def serve(index: PythonIndex, upstream: FaultyUpstream) -> None:
    """Let a source answer what bandersnatch asks besides files: the list without a slash, and projects as JSON."""
    bodies = metadata_of(index, upstream.url)

    def project(seen: Seen) -> Fault | None:
        name = seen.path.split("/")[1]
        if name not in bodies:
            return None
        headers = {"Content-Type": "application/json", "X-PyPI-Last-Serial": str(index.serial[name])}
        return Fault(status=200, body=bodies[name], headers=headers)

    contents = {
        f"packages/{name}/{file.filename}": file.content for name, files in index.projects.items() for file in files
    }
    upstream.route("pypi/*", project)
    upstream.route("packages/*", lambda seen: contents.get(seen.path))
    upstream.route("simple", lambda _: Fault(status=200, body=index.list_json(), headers={"Content-Type": JSON}))


def mirrored(program: Path, url: str, folder: Path, files: int) -> float:
    """Let bandersnatch mirror everything; return the seconds until all of it is on the disk. Blocks."""
    folder.mkdir()
    settings = folder / "bandersnatch.conf"
    settings.write_text(_BANDERSNATCH.format(folder=folder / "mirror", url=url))
    began = time.perf_counter()
    with (folder / "log").open("wb") as log:
        subprocess.run([str(program), "-c", str(settings), "mirror"], check=True, stdout=log, stderr=log)
    subprocess.run(["sync", "-f", str(folder)], check=True)
    took = time.perf_counter() - began
    brought = sum(1 for _ in (folder / "mirror").rglob("*.whl"))
    assert brought == files, f"bandersnatch brought {brought} of {files} files: {folder / 'log'}"
    return took
