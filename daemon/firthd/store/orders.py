"""The only place that knows by what lists of channels and of mirrors can be sorted."""

_NAME = "replace(c.name, '/', ' ')"
"""A channel's children come before the siblings whose names begin like its own."""

CHANNEL_ORDERS = {
    "name": _NAME,
    "created_at": "c.created_at",
    "updated_at": "c.updated_at",
    "published_at": (
        "coalesce((SELECT g.time FROM generation g WHERE g.channel_id = c.id AND g.number = c.generation), 0)"
    ),
}

MIRROR_ORDERS = {
    "name": f"({_NAME} || char(1) || m.name)",
    "mirror": "m.name",
    "type": "m.type",
    "mode": "m.mode",
    "state": "m.state",
    "last_updated": "coalesce(m.last_success_at, 0)",
    "updated_at": "m.updated_at",
    # what never comes by itself comes last
    "next_run_at": (
        f"coalesce((SELECT d.value FROM json_each(:due) d WHERE m.enabled AND d.key = m.schedule), {1 << 62})"
    ),
}
