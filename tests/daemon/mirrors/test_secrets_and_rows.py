"""A mirror's row and its secrets lie apart: after a crash between the two, no secret goes where it does not belong."""

from pathlib import Path

from firth_protocol.types import Credentials
from firthd.mirrors.source import source_of
from firthd.store import catalog
from firthd.store.database import Tx
from firthd.store.secrets import Secrets
from tests.support.world import world


async def test_credentials_of_one_host_never_go_to_a_newer_rows_host(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        daemon = w.daemon.daemon
        secret = Credentials(user="u", password="s3cret")
        mirror = await w.mirror(
            source="https://one.example.org/pkgs", credentials={"user": "u", "password": "s3cret"}, check=False
        )

        async def row() -> catalog.MirrorRow:
            found = await daemon.db.read(lambda r: catalog.mirror_by_id(r, mirror.id))
            assert found is not None
            return found

        assert source_of(await row(), daemon.secrets).credentials == secret

        async def moved(tx: Tx) -> None:  # what an edit has committed when the crash comes before the secrets
            await catalog.update_mirror(tx, mirror.id, {"source": "https://two.example.org/pkgs"}, 1)

        await daemon.db.write(moved)
        assert source_of(await row(), daemon.secrets).credentials is None


async def test_credentials_taken_away_are_not_sent_any_more(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        daemon = w.daemon.daemon
        mirror = await w.mirror(
            source="https://one.example.org/pkgs", credentials={"user": "u", "password": "s3cret"}, check=False
        )

        async def without(tx: Tx) -> None:
            await catalog.update_mirror(tx, mirror.id, {"has_credentials": 0}, 1)

        await daemon.db.write(without)
        found = await daemon.db.read(lambda r: catalog.mirror_by_id(r, mirror.id))
        assert found is not None
        assert source_of(found, daemon.secrets).credentials is None


async def test_the_stored_proxy_is_used_for_the_row_it_belongs_to_only(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        daemon = w.daemon.daemon
        mirror = await w.mirror(proxy="http://u:pw@proxy.example.org:3128", check=False)
        found = await daemon.db.read(lambda r: catalog.mirror_by_id(r, mirror.id))
        assert found is not None
        assert source_of(found, daemon.secrets).proxy == "http://u:pw@proxy.example.org:3128"
        await daemon.secrets.put(mirror.id, Secrets(proxy="http://u:pw@old.example.org:3128"))
        assert source_of(found, daemon.secrets).proxy == found.proxy
