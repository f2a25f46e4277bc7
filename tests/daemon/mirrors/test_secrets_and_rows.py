"""A mirror's row and its secrets lie apart: after a crash between the two, no secret goes where it does not belong."""

import asyncio
from pathlib import Path

import pytest

from firth_protocol.errors import Invalid, Unavailable
from firth_protocol.types import Credentials
from firthd.mirrors.source import source_of
from firthd.store import catalog
from firthd.store.database import Tx
from firthd.store.secrets import Named, SecretFile, Secrets
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


# --- credentials that the service manager keeps


def kept(tmp_path: Path, **files: str) -> SecretFile:
    """Return the secrets of a daemon that was started with these credentials."""
    given = tmp_path / "credentials"
    given.mkdir(exist_ok=True)
    for file in given.iterdir():
        file.unlink()
    for name, text in files.items():
        (given / name).write_text(text)
    secrets = SecretFile(tmp_path / "secrets.json", given)
    secrets.load()
    return secrets


FORGE = '{"user": "ann", "password": "s3cret"}'


async def test_of_named_credentials_only_the_name_is_written_down(tmp_path: Path) -> None:
    secrets = await asyncio.to_thread(kept, tmp_path, forge=FORGE)
    found = secrets.named("@forge")
    assert (found.user, found.password, found.name) == ("ann", "s3cret", "forge")
    assert "s3cret" not in repr(found)
    await secrets.put(7, Secrets(named="forge", host="forge.example.org"))
    assert "s3cret" not in (tmp_path / "secrets.json").read_text()
    changed = (await asyncio.to_thread(kept, tmp_path, forge='{"bearer": "another"}')).get(7)
    assert isinstance(changed.credentials, Named)
    assert changed.credentials.bearer == "another"
    assert (await asyncio.to_thread(kept, tmp_path)).get(7) == Secrets(named="forge", host="forge.example.org")


@pytest.mark.parametrize("text", ["", "s3cret", '{"tokn": "s3cret"}', '["s3cret"]', '{"token": ""}', '{"token": 7}'])
def test_a_credential_that_is_none_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        kept(tmp_path, forge=text).named("@forge")
    assert "s3cret" not in f"{caught.value.message} {caught.value.hint}"
    assert "forge" in caught.value.message


async def test_a_mirror_with_a_name_for_its_credentials_lives_through_edits_and_their_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(given))
    async with world(tmp_path) as w:
        daemon = w.daemon.daemon
        with pytest.raises(Invalid, match="gives no credential 'forge'") as caught:
            await w.mirror(source="https://one.example.org/pkgs", credentials="@forge", check=False)
        assert "LoadCredential=forge:FILE" in (caught.value.hint or "")
        (given / "forge").write_text(FORGE)
        await asyncio.to_thread(daemon.secrets.load)
        mirror = await w.mirror(source="https://one.example.org/pkgs", credentials="@forge", check=False)
        assert mirror.credentials == "***"

        async def row() -> catalog.MirrorRow:
            found = await daemon.db.read(lambda r: catalog.mirror_by_id(r, mirror.id))
            assert found is not None
            return found

        async def edit(**fields: object) -> None:
            now = await w.call("mirror.get", mirror=mirror.id)
            await w.call("mirror.update", mirror=mirror.id, revision=now.revision, check=False, **fields)

        await edit(source="https://one.example.org/other")
        assert daemon.secrets.get(mirror.id).named == "forge"
        assert source_of(await row(), daemon.secrets).credentials == Named(user="ann", password="s3cret", name="forge")
        assert "s3cret" not in (w.daemon.state / "secrets.json").read_text()
        (given / "forge").unlink()
        await asyncio.to_thread(daemon.secrets.load)  # as after a start without the drop-in
        with pytest.raises(Unavailable, match="gives no credential 'forge'"):
            source_of(await row(), daemon.secrets)
        with pytest.raises(Unavailable):
            await edit(source="https://one.example.org/third")
        await edit(credentials={"token": "tk-1"})
        assert source_of(await row(), daemon.secrets).credentials == Credentials(token="tk-1")
        assert daemon.secrets.get(mirror.id).named == ""
