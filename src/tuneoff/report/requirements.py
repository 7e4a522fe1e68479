"""Checks which contenders meet the file's requirements."""

from __future__ import annotations

from tuneoff.config.schema import Requirements
from tuneoff.report import format as f
from tuneoff.results import ContenderResult


def find_violated_requirement(contender: ContenderResult, required: Requirements) -> str | None:
    """Return the violated requirement, as a clause; None if all are met."""
    provider = contender.place == "provider"
    if required.data_stays_here and contender.place != "own":
        why = (
            "its examples and prompts go to a provider"
            if provider
            else ("where it answers is not known")
        )
        return f"data_stays_here is required, and {why}"
    if required.managed and not provider:
        why = "somebody has to run it" if contender.place == "own" else ("who runs it is not known")
        return f"managed is required, and {why}"
    seconds, which = _get_latency(contender)
    most = required.max_latency_seconds
    if most is not None and seconds is not None and seconds > most:
        return f"max_latency_seconds is {most:g}, and {which} {f.seconds(seconds)}"
    return None


def list_unchecked(contender: ContenderResult, required: Requirements) -> list[str]:
    """Return sentences on requirements that could not be checked."""
    if required.max_latency_seconds is None or _get_latency(contender)[0] is not None:
        return []
    why = ": it answered in batches, which take up to a day" if contender.serving.batch else ""
    return [
        f"max_latency_seconds is {required.max_latency_seconds:g}, and how long {contender.name} "
        f"takes to answer was not measured{why}."
    ]


def _get_latency(contender: ContenderResult) -> tuple[float | None, str]:
    """Return the seconds of an answer, and which figure it is: the 95th percentile where known."""
    serving = contender.serving
    load = f.at_once(serving.concurrency)
    when = f", with {load}," if load else ""
    if serving.seconds_p95 is not None:
        return serving.seconds_p95, f"one answer in twenty{when} takes longer than"
    return serving.seconds_p50, f"half of its answers{when} take longer than"
