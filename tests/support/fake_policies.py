"""The stand-in daemon's policies: kept, assigned and explained, as far as a terminal can tell; nothing is judged."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from firth_protocol import types as t
from firth_protocol.errors import Conflict, InUse, Invalid, NotFound, WrongState
from firth_protocol.events import Fact
from firth_protocol.methods import AdvisoryGet
from firthd.policies.rules import in_words
from tests.support.fake_world import FakeWorld, rfc3339

T = TypeVar("T")


def excluded(name: str, rule: str, why: str) -> t.Excluded:
    """Return a file that a rule keeps out."""
    return t.Excluded(
        part="noarch",
        filename=f"{name}-1.0-0.conda",
        name=name,
        version="1.0",
        build="0",
        size=1000,
        rule=rule,
        why=why,
    )


class FakePolicies(FakeWorld):
    """Tests put what a policy keeps out into `left_out`, and what a report holds into `report`."""

    def __init__(self, now: float) -> None:
        super().__init__(now)
        self.policies: dict[str, t.Policy] = {}
        self.left_out: list[t.Excluded] = []
        self.report: list[t.DependencyRow] = []
        self.report_lacks = ""
        self.advisories: dict[str, AdvisoryGet] = {}
        self.imported: list[tuple[str, str]] = []

    def _page(self, items: Sequence[T], cursor: str | None, limit: int) -> t.Page[T]:
        raise NotImplementedError

    def _mirror(self, ref: int | str) -> t.Mirror:
        raise NotImplementedError

    def add_advisory(self, id: str, *touches: t.AdvisoryTouch, **fields: Any) -> None:
        """Have a flaw known, of the packages that `touches` are about."""
        given: dict[str, Any] = {
            "aliases": [],
            "families": sorted({each.family for each in touches}),
            "packages": sorted({each.package for each in touches}),
            "summary": "Reads past the end of what it was given.",
            "score": 9.8,
            "status": t.AdvisoryStatus.REPORTED,
            "withdrawn": False,
            "modified": rfc3339(self.now - 2 * 86400),
            "imported_at": rfc3339(self.now - 3600),
            "set_by": None,
            "set_at": None,
            "note": "",
            **fields,
        }
        self.advisories[id] = AdvisoryGet(id=id, touches=list(touches), touches_total=len(touches), as_of="", **given)

    def _do_advisory_list(self, query: str = "", cursor: str | None = None, limit: int = 100) -> Any:
        found = [
            one for id, one in sorted(self.advisories.items()) if query in f"{id} {' '.join(one.packages)}".casefold()
        ]
        fields = t.AdvisoryInfo.__struct_fields__
        told = [t.AdvisoryInfo(**{name: getattr(one, name) for name in fields}) for one in found]
        return self._page(told, cursor, limit)

    def _do_advisory_import(self, source: str, format: str = "osv") -> Any:
        self.imported.append((source, format))
        self.add_advisory("GHSA-1111")
        return {"run": None, "seq": 0}

    def _do_advisory_get(self, id: str) -> Any:
        if id not in self.advisories:
            raise NotFound(f"there is no advisory {id!r}")
        return self.advisories[id]

    def _do_advisory_summary(self) -> Any:
        databases: dict[str, list[t.AdvisoryInfo]] = {}
        for one in self.advisories.values():
            databases.setdefault(one.id.partition("-")[0], []).append(one)
        found = [
            t.AdvisoryDatabase(
                name=name,
                advisories=len(those),
                withdrawn=sum(one.withdrawn for one in those),
                modified=max(one.modified for one in those),
                imported_at=max(one.imported_at for one in those),
            )
            for name, those in sorted(databases.items())
        ]
        return {"databases": found, "as_of": ""}

    def add_policy(self, name: str, **rules: Any) -> t.Policy:
        return self._put(name, "", None, rules, 1)

    def _put(
        self, name: str, description: str, families: list[str] | None, rules: dict[str, Any], revision: int
    ) -> t.Policy:
        judged = [t.Family(each) for each in families] if families else list(t.Family)
        read = msgspec.convert(rules, t.Rules)
        self.policies[name] = t.Policy(
            id=self.policies[name].id if name in self.policies else next(self._ids),
            name=name,
            description=description,
            families=judged,
            rules=read,
            summary=in_words(read, judged),
            used_by=[],
            created_at=rfc3339(self.now),
            updated_at=rfc3339(self.now),
            revision=revision,
        )
        return self.policies[name]

    def assign(self) -> None:
        """Bring up to date which policy is in force for each mirror."""
        for number, mirror in self.mirrors.items():
            owner = self.channels.get(mirror.channel)
            name, of = (mirror.policy, "mirror") if mirror.policy else (owner.policy if owner else None, "channel")
            told = None
            if name is not None:
                told = t.PolicyInForce(name=name, of=of, judges=True, report_lacks=self.report_lacks)
            self.mirrors[number] = msgspec.structs.replace(mirror, in_force=told)

    def _told(self, name: str) -> t.Policy:
        if name not in self.policies:
            raise NotFound(f"there is no policy {name}")
        used = [t.PolicyUse(channel=each.name) for each in self.channels.values() if each.policy == name]
        used += [
            t.PolicyUse(channel=each.channel, mirror=each.id, mirror_name=each.name)
            for each in self.mirrors.values()
            if each.policy == name
        ]
        return msgspec.structs.replace(self.policies[name], used_by=used)

    def _checked(self, rules: dict[str, Any]) -> None:
        for number, spec in enumerate(rules.get("packages", {}).get("allow") or ()):
            if "<<" in spec:
                raise Invalid(f"{spec!r} is no spec", hint="numpy >=2", path=f"$.rules.packages.allow[{number}]")

    def filtered(self, mirror: t.Mirror) -> list[t.FilteredCount]:
        """Return how many files each rule keeps out of a mirror."""
        if mirror.in_force is None:
            return [t.FilteredCount(reason="subdir", whose="filters", count=412_000)]
        whose = f"policy {mirror.in_force.name} of the {mirror.in_force.of}"
        return [
            t.FilteredCount(reason=rule, whose=whose, count=sum(one.rule == rule for one in self.left_out))
            for rule in sorted({one.rule for one in self.left_out})
        ]

    def _do_policy_list(self, query: str = "", cursor: str | None = None, limit: int = 100) -> Any:
        return self._page([self._told(name) for name in sorted(self.policies) if query in name], cursor, limit)

    def _do_policy_get(self, policy: str) -> Any:
        return {**msgspec.to_builtins(self._told(policy)), "as_of": self.as_of}

    def _do_policy_create(
        self,
        name: str,
        rules: dict[str, Any],
        description: str = "",
        families: list[str] | None = None,
        dry_run: bool = False,
    ) -> Any:
        self._checked(rules)
        if name in self.policies:
            raise Conflict(f"policy {name} exists already", path="$.name")
        made = self._put(name, description, families, rules, 1)
        if dry_run:
            del self.policies[name]
        else:
            self.tell(Fact.POLICY_CREATED, {"policy": name})
        return {"policy": made, "seq": len(self.events)}

    def _do_policy_update(self, policy: str, revision: int, **fields: Any) -> Any:
        held = self._told(policy)
        if held.revision != revision:
            raise Conflict(f"policy {policy} was changed meanwhile")
        rules = fields.get("rules", msgspec.to_builtins(held.rules))
        self._checked(rules)
        families = fields.get("families", list(held.families))
        self._put(policy, fields.get("description", held.description), families, rules, revision + 1)
        judged = [each.id for each in self.mirrors.values() if each.in_force and each.in_force.name == policy]
        runs = [self.begin_run(mirror, t.RunKind.REFILTER) for mirror in judged]
        self.tell(Fact.POLICY_UPDATED, {"policy": policy})
        return {"policy": self._told(policy), "runs": runs, "seq": len(self.events)}

    def _do_policy_delete(self, policy: str) -> Any:
        if self._told(policy).used_by:
            raise InUse(f"policy {policy} is in force")
        del self.policies[policy]
        self.tell(Fact.POLICY_DELETED, {"policy": policy})
        return {"seq": len(self.events)}

    def _do_policy_preview(
        self,
        policy: str | None = None,
        rules: dict[str, Any] | None = None,
        families: list[str] | None = None,
        mirror: int | str | None = None,
        channel: str | None = None,
    ) -> Any:
        self._checked(rules or {})
        known = self.policies.get(policy or "")
        read = known.rules if known is not None else msgspec.convert(rules, t.Rules)
        on = (
            [self._mirror(mirror)] if mirror is not None else [m for m in self.mirrors.values() if m.channel == channel]
        )
        effects = [
            t.PolicyEffect(
                mirror=each.id,
                mirror_name=each.name,
                records=1000,
                kept=1000 - len(self.left_out),
                bytes=5_000_000,
                filtered=[
                    t.FilteredCount(reason=rule, whose="preview", count=sum(one.rule == rule for one in self.left_out))
                    for rule in sorted({one.rule for one in self.left_out})
                ],
                names_added=[],
                names_added_total=0,
                names_removed=[one.name for one in self.left_out],
                names_removed_total=len(self.left_out),
                missing=[t.MissingDependency(requirement="zlib >=1.3", platform="noarch", chain=["app"])],
                missing_total=1,
                unsolvable=[],
                unmapped_licenses=[],
                notes=[],
            )
            for each in on
        ]
        return {"summary": in_words(read, list(t.Family)), "effects": effects, "warnings": []}

    def _do_mirror_excluded(
        self,
        mirror: int | str,
        reason: str | None = None,
        query: str = "",
        cursor: str | None = None,
        limit: int = 100,
    ) -> Any:
        self._mirror(mirror)
        found = [one for one in self.left_out if reason in {None, one.rule} and query in one.filename]
        return self._page(found, cursor, limit)

    def _do_package_explain(
        self, channel: str, spec: str, family: str = "conda", cursor: str | None = None, limit: int = 100
    ) -> Any:
        if "<<" in spec:
            raise Invalid(f"{spec!r} is no spec", path="$.spec")
        mirror = next(each for each in self.mirrors.values() if each.channel == channel)
        policy = mirror.in_force.name if mirror.in_force else None
        found = [
            t.Explained(
                mirror=mirror.id,
                mirror_name=mirror.name,
                part=one.part,
                filename=one.filename,
                name=one.name,
                version=one.version,
                build=one.build,
                verdict="excluded",
                policy=policy,
                rule=one.rule,
                why=one.why,
            )
            for one in self.left_out
            if one.name == spec.split()[0] and family == mirror.type.value
        ]
        return self._page(found, cursor, limit)

    def _do_mirror_dependency_report(
        self, mirror: int | str, format: str = "json", cursor: str | None = None, limit: int = 100
    ) -> Any:
        self._mirror(mirror)
        if self.report_lacks:
            raise WrongState(self.report_lacks)
        page = self._page(self.report, cursor, min(limit, 2))
        rows = [] if format == "csv" else page.items
        text = None
        if format == "csv":
            header = ["name,state\n"] if cursor is None else []
            text = "".join([*header, *(f'"{one.name}",{one.state}\n' for one in page.items)])
        return {"rows": rows, "text": text, "next_cursor": page.next_cursor, "as_of": self.as_of}
