"""Why an action makes no sense on what is under the cursor just now: one sentence each, or None."""

from firth_tui.actions import Context


def needs_a_run(context: Context) -> str | None:
    """A mirror that never ran is `pending` too: only one whose newest run is open can be stopped."""
    if context.run is not None:
        return f"run {context.run.id} has ended" if context.run.state.ended else None
    mirror = context.mirror
    if mirror is None:
        return None
    if mirror.last_run is None or mirror.last_run.state.ended:
        return f"{mirror.name} is not running"
    return None


def already_running(context: Context) -> str | None:
    mirror = context.mirror
    if mirror is None or mirror.last_run is None or mirror.last_run.state.ended:
        return None
    return f"{mirror.name} is running already"


def needs_passive(context: Context) -> str | None:
    mirror = context.mirror
    return "an active mirror stores every file anyway" if mirror and mirror.mode == "active" else None


def has_subchannels(context: Context) -> str | None:
    channel = context.channel
    return "delete its subchannels first" if channel and channel.subchannels else None


def not_nested(context: Context) -> str | None:
    channel = context.channel
    return "a subchannel has no subchannels" if channel and "/" in channel.name else None


def frozen_blocks(context: Context) -> str | None:
    channel = context.channel
    return f"{channel.name} is frozen: unfreeze it first" if channel and channel.frozen else None


def not_current(context: Context) -> str | None:
    generation = context.generation
    if generation is None:
        return None
    if generation.current:
        return f"generation {generation.number} is the published one"
    return None if generation.kept else f"generation {generation.number} is no longer kept"


def revoked(context: Context) -> str | None:
    token = context.token
    return f"{token.name} is revoked already" if token is not None and token.revoked else None


def never_ran(context: Context) -> str | None:
    mirror = context.mirror
    return f"{mirror.name} has not run yet" if mirror is not None and mirror.last_run is None else None


def policy_in_use(context: Context) -> str | None:
    policy = context.policy
    if policy is None or not policy.used_by:
        return None
    first = policy.used_by[0]
    where = first.channel if first.mirror_name is None else f"{first.channel}: {first.mirror_name}"
    more = f" and {len(policy.used_by) - 1:,} more" if len(policy.used_by) > 1 else ""
    return f"it is in force for {where}{more}: take it away there first"


def no_policy(context: Context) -> str | None:
    mirror = context.mirror
    if mirror is None or mirror.in_force is not None:
        return None
    return f"no policy is in force for {mirror.name}; its form or that of its channel picks one"


def not_judged(context: Context) -> str | None:
    mirror = context.mirror
    if mirror is None or (mirror.in_force is not None and mirror.in_force.judges):
        return None
    return f"no policy judges {mirror.name}"


def no_report(context: Context) -> str | None:
    mirror = context.mirror
    if mirror is None:
        return None
    if mirror.in_force is None:
        return "no policy is in force: a report wants one that names packages and includes dependencies"
    return mirror.in_force.report_lacks or None


def channel_without_policy(context: Context) -> str | None:
    channel = context.channel
    return f"{channel.name} has no policy; e picks one" if channel is not None and channel.policy is None else None


def policy_unused(context: Context) -> str | None:
    policy = context.policy
    return "no channel and no mirror has it" if policy is not None and not policy.used_by else None
