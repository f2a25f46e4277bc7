"""The form that asks where a dependency report goes, and in which format."""

from collections.abc import Sequence
from pathlib import Path

from textual.widgets import Static

from firth_protocol.errors import Invalid
from firth_protocol.types import Mirror
from firth_tui.dependency_report import ReportFile, write_report
from firth_tui.format import Tone, counted
from firth_tui.screens.forms.fields import Field, choice_field, text_field
from firth_tui.screens.forms.form import Form

FORMATS = (("csv", "CSV, for a spreadsheet"), ("json", "JSON"))


class ReportForm(Form):
    """Dismisses with a ReportFile, or None when cancelled."""

    def __init__(self, mirror: Mirror) -> None:
        super().__init__(f"Dependency report of {mirror.channel}: {mirror.name}")
        self.mirror = mirror
        self._replaces = ""

    def fields(self) -> list[Field]:
        name = "-".join(part for part in (self.mirror.channel, self.mirror.name) if part)
        safe = "".join(each if each.isalnum() or each in "-_." else "-" for each in name)
        return [
            text_field(
                "file",
                "File",
                "On the machine where firth runs; ~ is your home.",
                f"~/{safe}-dependencies.csv",
            ),
            choice_field("format", "Format", "What the file holds.", FORMATS, "csv"),
        ]

    def buttons(self) -> Sequence[tuple[str, str]]:
        return [("save", "Write")]

    def changed_field(self, name: str) -> None:
        field = self.field("file")
        ending, wanted = Path(field.value).suffix, f".{self.field('format').value}"
        if name == "format" and ending in {".csv", ".json"} and ending != wanted:
            field.value = str(Path(field.value).with_suffix(wanted))

    async def press(self, button: str) -> None:
        values = self.values()
        if not values["file"]:
            raise Invalid("a file is needed", path="file")
        try:
            path = Path(values["file"]).expanduser().absolute()
        except RuntimeError:
            raise Invalid("nobody of that name has a home here", path="file") from None
        replace = self._replaces == str(path)

        def progress(rows: int) -> None:
            self.query_one("#form-hint", Static).update(f"{counted(rows, 'row')} written…")

        try:
            rows = await write_report(
                self.firth.link, self.mirror.id, path, values["format"], replace=replace, progress=progress
            )
        except FileExistsError:
            self._replaces = str(path)
            said = "! it is there already; Write again to replace it, or name another"
            self.field("file").say(said, Tone.WARN)
            return
        except ConnectionError:
            raise
        except OSError as error:
            raise Invalid(f"it cannot be written: {error.strerror or error}", path="file") from None
        self.dismiss(ReportFile(path, rows))
