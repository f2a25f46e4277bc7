"""The form that asks which database of advisories is to be read."""

from collections.abc import Sequence

from firth_protocol.errors import Invalid
from firth_protocol.methods import RunReply
from firth_protocol.types import AdvisoryFormat
from firth_tui.screens.forms.fields import Field, choice_field, text_field
from firth_tui.screens.forms.form import Form

FORMATS = (
    (AdvisoryFormat.OSV.value, "OSV: a zip, a folder, or one file"),
    (AdvisoryFormat.LINES.value, "lines of Firth's own format, for conda"),
)


class AdvisoryForm(Form):
    """Dismisses with a RunReply, or None when cancelled."""

    def __init__(self) -> None:
        super().__init__("Import advisories")

    def fields(self) -> list[Field]:
        return [
            text_field(
                "source",
                "From",
                "A path on the daemon's machine, or an address; what was set by hand stays.",
                placeholder="such as /srv/osv/all.zip or https://osv.example.org/PyPI/all.zip",
            ),
            choice_field("format", "Format", "What stands there.", FORMATS, AdvisoryFormat.OSV.value),
        ]

    def buttons(self) -> Sequence[tuple[str, str]]:
        return [("save", "Import")]

    async def press(self, button: str) -> None:
        values = self.values()
        if not values["source"]:
            raise Invalid("a path or an address is needed", path="source")
        self.dismiss(
            await self.firth.link.ask(RunReply, "advisory.import", source=values["source"], format=values["format"])
        )
