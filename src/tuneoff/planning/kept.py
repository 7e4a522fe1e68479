"""The planned cost of a run's training, saved when it begins, to be compared with the bill.

It is the plan of the run's own examples, without the training probe of twenty seconds. It is
computed again only where the file changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from tuneoff.bakeoff.plan.plan import plan_examples
from tuneoff.bakeoff.prepare import ResolvedBakeOff
from tuneoff.config.contenders import HostedConfig, LocalConfig
from tuneoff.contenders.variants import list_variants
from tuneoff.costs.contender_prices import is_free_local_server
from tuneoff.errors import TuneoffError
from tuneoff.records import Example, PlannedRecord, Split
from tuneoff.storage.resume import dump_resolved
from tuneoff.storage.run_dir import RunDir


def save_plan(
    parts: ResolvedBakeOff, examples: Mapping[Split, Sequence[Example]], run: RunDir
) -> None:
    """Write `planned.json` of each contender whose training can have a price."""
    written = json.dumps(dump_resolved(parts.bakeoff), sort_keys=True)
    sha256 = hashlib.sha256(written.encode()).hexdigest()
    left = [
        settings
        for settings in parts.bakeoff.contenders
        if _can_cost(settings) and not _is_planned(run, settings.name, sha256)
    ]
    if not left:
        return
    remaining = replace(parts, bakeoff=parts.bakeoff.model_copy(update={"contenders": tuple(left)}))
    try:
        planned = plan_examples(remaining, examples)
    except TuneoffError as error:  # a run works without a plan, and reports errors itself
        run.event("not planned", error=str(error))
        return
    for settings, contender_plan in zip(left, planned.contenders, strict=True):
        usd = contender_plan.training.usd if contender_plan.training else None
        if usd is not None:  # the plan's cost is for all seeds and fractions together
            times = sum((Decimal(str(t.fraction)) for t in list_variants(settings)), Decimal())
            usd = float(Decimal(str(usd)) / times)
        run.contender(settings.name).write_planned(PlannedRecord(sha256, usd))


def _can_cost(settings: Any) -> bool:
    """Return whether a contender's training can have a price."""
    if isinstance(settings, HostedConfig):
        return not is_free_local_server(settings)
    return isinstance(settings, LocalConfig) and settings.hardware is not None


def _is_planned(run: RunDir, name: str, sha256: str) -> bool:
    """Return whether a contender was planned for this file."""
    before = run.contender(name).planned()
    return before is not None and before.file_sha256 == sha256
