"""What a run's trainings were planned to cost, kept when it begins, to be held against the bill.

The plan's own figures, of the run's own examples, without the twenty seconds of measuring. They
are worked out again only where the file changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from tuneoff.contender_settings import HostedSettings, LocalSettings
from tuneoff.contenders.trainings import trainings
from tuneoff.errors import TuneoffError
from tuneoff.opening import resolved
from tuneoff.planning import plan_examples
from tuneoff.prepare import Parts
from tuneoff.records import Example, PlannedRecord, Split
from tuneoff.rundir import RunDir
from tuneoff.spending import asks_nothing


def keep_plan(parts: Parts, examples: Mapping[Split, Sequence[Example]], run: RunDir) -> None:
    """Writes `planned.json` of each contender whose training can have a price."""
    written = json.dumps(resolved(parts.bakeoff), sort_keys=True)
    sha256 = hashlib.sha256(written.encode()).hexdigest()
    left = [
        settings
        for settings in parts.bakeoff.contenders
        if _may_cost(settings) and not _is_planned(run, settings.name, sha256)
    ]
    if not left:
        return
    some = replace(parts, bakeoff=parts.bakeoff.model_copy(update={"contenders": tuple(left)}))
    try:
        planned = plan_examples(some, examples)
    except TuneoffError as error:  # a run does without, and says by itself what it cannot
        run.event("not planned", error=str(error))
        return
    for settings, found in zip(left, planned.contenders, strict=True):
        usd = found.training.usd if found.training else None
        if usd is not None:  # the plan's is for all seeds and parts together
            times = sum((Decimal(str(t.fraction)) for t in trainings(settings)), Decimal())
            usd = float(Decimal(str(usd)) / times)
        run.contender(settings.name).write_planned(PlannedRecord(sha256, usd))


def _may_cost(settings: Any) -> bool:
    if isinstance(settings, HostedSettings):
        return not asks_nothing(settings)
    return isinstance(settings, LocalSettings) and settings.hardware is not None


def _is_planned(run: RunDir, name: str, sha256: str) -> bool:
    before = run.contender(name).planned()
    return before is not None and before.file_sha256 == sha256
