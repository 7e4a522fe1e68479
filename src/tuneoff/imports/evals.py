"""Converts an export of OpenAI's evals, which ended, to a test set, files of answers, and graders.

`test.jsonl` has the items as chat rows, with the reference as the answer; `meta.item` is the item
itself, which graders read. `answers-RUN.jsonl` has the answers of a run's model, for `tuneoff
score` and `tuneoff parity`. `graders/NAME.json` are the testing criteria unchanged, for
`task.metrics`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneoff.config.schema import GraderConfig
from tuneoff.errors import ConfigError, DataError, MissingExtraError
from tuneoff.imports.eval_export import (
    EvalExport,
    EvalOutput,
    find_item_turns,
    is_eval_row,
    read_export,
    read_turns,
)
from tuneoff.imports.eval_scores import StoredScore, compare_scores, has_code
from tuneoff.scoring import grader_forms as forms
from tuneoff.scoring.grader_templates import (
    GraderTemplate,
    MissingFieldError,
    TemplateField,
    build_sample,
    render_value,
)
from tuneoff.scoring.graders import build_grader
from tuneoff.scoring.model_grader import ModelGrader
from tuneoff.storage.files import format_line, write_text
from tuneoff.tasks.training_rows import find_fault

Values = Mapping[str, Any]
# Usual names of an item's reference, the most likely first.
REFERENCE_NAMES = (
    "reference_answer", "reference", "ideal", "correct_label", "ground_truth", "expected_output",
    "expected", "label", "answer", "completion", "output",
)  # fmt: skip
NO_REFERENCE, NO_PROMPT = "no reference", "no prompt that is text"
NO_ANSWER, ERRORED = "no answer", "an error instead of an answer"


@dataclass(frozen=True, slots=True)
class Criterion:
    """A testing criterion with its grader, or why it cannot be used."""

    value: Values
    file: str
    form: forms.AnyForm | None
    fault: str | None = None


@dataclass(slots=True)
class EvalRun:
    """The answers of one run."""

    models: Counter[str] = field(default_factory=Counter)
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    asked_otherwise: int = 0


def recognize_rows(rows: Sequence[Values]) -> bool:
    """Return whether a file's first rows are of an evals export."""
    return any(is_eval_row(row) for row in rows)


def import_evals(files: Sequence[Path], out: Path, reference: str | None = None) -> dict[str, Any]:
    """Write the content of an export to a folder; return a summary as plain values.

    Args:
        reference: the field of an item that is its reference. Default: a grader's, or one with a
            usual name.

    Raises:
        DataError: no field is the reference, or another file is there already.
        ConfigError: the reference cannot be read as a field.
    """
    export = read_export(files)
    criteria = _name_criteria(export.criteria) or _read_graders(out / "graders")
    field_of, source = _find_reference(export, criteria, reference)
    maker = _EvalConverter(export, field_of)
    for output in export.outputs:
        maker.add(output)
    new = criteria if export.criteria else []
    written = {f"graders/{each.file}": _to_json(each.value) for each in new}
    if maker.tests:
        written["test.jsonl"] = "".join(map(format_line, maker.tests.values()))
    for name, run in maker.runs.items():
        if run.rows:
            written[_name_answers(name)] = "".join(map(format_line, run.rows))
    _write_files(out, written)
    return {
        "form": "evals",
        "eval": export.name,
        "items": len(maker.tests),
        "reference": None if field_of is None else field_of.written,
        "reference_from": source,
        "left_out": dict(export.left_out),
        "runs": [_describe_run(name, run) for name, run in maker.runs.items()],
        "graders": [_describe_criterion(each, maker.scores) for each in criteria],
        "files": sorted(written),
    }


def describe_evals(summary: Mapping[str, Any], out: Path) -> list[str]:
    """Return the summary in lines for people."""
    lines = []
    if summary["items"]:
        lines.append(
            f"{out / 'test.jsonl'}: {summary['items']} test examples; their reference is "
            f"{summary['reference']} ({summary['reference_from']})."
        )
    lines += [f"{count} left out: {reason}." for reason, count in summary["left_out"].items()]
    lines += [_describe_answers(run, out) for run in summary["runs"]]
    lines += [
        f"{out / 'graders' / grader['file']}: {_describe_grader(grader)}."
        for grader in summary["graders"]
    ]
    usable = [f"graders/{each['file']}" for each in summary["graders"] if each["fault"] is None]
    if usable:
        lines.append(f"As metrics of a bake-off file: task.metrics: [{', '.join(usable)}].")
    return lines


class _EvalConverter:
    """Builds test rows and answers from an export."""

    def __init__(self, export: EvalExport, reference: TemplateField | None) -> None:
        self.tests: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, EvalRun] = {}
        self.scores: list[StoredScore] = []
        self._export, self._reference = export, reference
        self._ids: dict[tuple[str, str], str] = {}
        self._samples: Counter[tuple[str, str]] = Counter()

    def add(self, output: EvalOutput) -> None:
        """Add an item, and a run's answer to it."""
        if output.run is not None:
            run = self.runs.setdefault(output.run, EvalRun())
            run.models.update([output.model] if output.model else [])
        id = self._find_or_add_item(output)
        if id is None or output.run is None:
            return
        if output.error is not None or output.answer is None:
            run.left_out[ERRORED if output.error else NO_ANSWER] += 1
            return
        test = self.tests[id]
        turns = self._find_turns(output)
        run.asked_otherwise += turns is not None and _set_weights(turns) != test["messages"][:-1]
        sample = self._samples[(output.run, id)]
        self._samples[(output.run, id)] += 1
        row = {"id": id, "prediction": output.answer, "reference": test["messages"][-1]["content"]}
        run.rows.append({**row, "meta": test["meta"], **({"sample": sample} if sample else {})})
        for result in output.results:
            self.scores.append(StoredScore(id, output.item, output.answer, result))

    def _find_or_add_item(self, output: EvalOutput) -> str | None:
        """Return the id of an item's test row, which is added if new; None if it is left out."""
        content = json.dumps(output.item, sort_keys=True)
        known = self._ids.get((output.place, content))
        if known is None and not output.place:
            known = next((id for (_, each), id in self._ids.items() if each == content), None)
        if known is not None:
            return known
        row = self._build_row(output)
        if isinstance(row, str):
            self._export.left_out[row] += 1
            return None
        id = f"item-{output.place or len(self._ids) + 1}"
        while id in self.tests:  # another run may have other items at the same place
            id += "b"
        self._ids[(output.place, content)] = id
        self.tests[id] = {"id": id, **row, "meta": {"item": output.item}}
        return id

    def _build_row(self, output: EvalOutput) -> dict[str, Any] | str:
        """Return an item's turns with the reference as the last one, or why it is left out."""
        try:
            value = self._reference.look_up(output.item, {}) if self._reference else None
        except MissingFieldError:
            value = None
        if value is None or not render_value(value).strip():
            return NO_REFERENCE
        turns = self._find_turns(output)
        if turns is None:
            return NO_PROMPT
        answer = {"role": "assistant", "content": render_value(value)}
        row = {"messages": [*_set_weights(turns), answer]}
        return find_fault(row) or row

    def _find_turns(self, output: EvalOutput) -> list[dict[str, str]] | None:
        """Return an item's prompt: as the model was asked, from the run's template, or from the
        item."""
        if output.turns:
            return [dict(turn) for turn in output.turns]
        template = read_turns(self._export.prompts.get(output.run or ""))
        if template is not None:
            try:
                return [
                    {**turn, "content": GraderTemplate(turn["content"], "run").render(
                        output.item, build_sample(""))}
                    for turn in template
                ]  # fmt: skip
            except (ConfigError, MissingFieldError):
                return None
        only = self._reference.path[0] if self._reference else None
        return find_item_turns(output.item, str(only))


def _set_weights(turns: Iterable[Values]) -> list[dict[str, Any]]:
    """Return the turns of a prompt; the assistant's get weight 0, as they are not learned."""
    return [{**turn, **({"weight": 0} if turn["role"] == "assistant" else {})} for turn in turns]


def _name_criteria(values: Sequence[Values]) -> list[Criterion]:
    """Return the criteria, each with the name of its file."""
    criteria: list[Criterion] = []
    for value in values:
        if any(each.value == value for each in criteria):
            continue
        name = re.sub(r"\W+", "_", str(value.get("name") or value.get("type")).lower()).strip("_")
        file, place = f"{name or 'grader'}.json", 1
        while any(each.file == file for each in criteria):
            place += 1
            file = f"{name or 'grader'}-{place}.json"
        criteria.append(_check_criterion(value, file))
    return criteria


def _read_graders(folder: Path) -> list[Criterion]:
    """Return the graders that an earlier import saved."""
    criteria = []
    for file in sorted(folder.glob("*.json")):
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: this is no JSON that can be read ({error}).") from None
        if isinstance(value, Mapping):
            criteria.append(_check_criterion(value, file.name))
    return criteria


def _check_criterion(value: Values, file: str) -> Criterion:
    """Return a criterion with its grader; no code of it is run."""
    try:
        form = forms.check_grader(value, file)
        if isinstance(form, forms.ModelGraderForm):
            ModelGrader(form, GraderConfig(id="grader", file=file), Path(file))
        elif not has_code(form):
            build_grader(form, file)
    except ConfigError as error:
        return Criterion(value, file, None, str(error).removeprefix(f"{file}: "))
    except MissingExtraError:  # the metric can be used; its scores are not compared
        pass
    return Criterion(value, file, form)


def _find_reference(
    export: EvalExport, criteria: Sequence[Criterion], named: str | None
) -> tuple[TemplateField | None, str | None]:
    """Return the field of an item that is its reference, and how it was found."""
    if named is not None:
        text = named if named.startswith("item.") else f"item.{named}"
        return GraderTemplate(f"{{{{ {text} }}}}", "--reference").fields[0], "--reference"
    for criterion in criteria:
        if (found := _find_grader_field(criterion)) is not None:
            return found, f"grader {criterion.value.get('name') or criterion.file}"
    if not export.outputs:
        return None, None
    names = list(export.outputs[0].item)
    for name in REFERENCE_NAMES:
        if name in names:
            return TemplateField("item", (name,)), "by its name"
    raise DataError(
        f"no grader says which field of an item is its reference, and none is called so (there "
        f"are: {', '.join(names)}); name it: --reference FIELD."
    )


def _find_grader_field(criterion: Criterion) -> TemplateField | None:
    """Return the field of an item that a grader compares answers with; None without one."""
    form = criterion.form
    if not isinstance(form, forms.StringCheckForm | forms.TextSimilarityForm):
        return None
    if isinstance(form, forms.StringCheckForm) and form.operation in ("ne", "neq"):
        return None
    for text in (form.reference, form.input):
        try:
            only = GraderTemplate(text, criterion.file).find_only_field()
        except ConfigError:
            return None
        if only is not None and only.namespace == "item":
            return only
    return None


def _write_files(out: Path, written: Mapping[str, str]) -> None:
    """Write files, or none of them if one would replace other content."""
    for name, text in written.items():
        path = out / name
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise DataError(
                f"{path}: a file of other content is there already; give another folder as --out, "
                "or move the file away. Nothing was written."
            )
    for name, text in written.items():
        write_text(out / name, text)


def _to_json(value: Values) -> str:
    """Return a value as indented JSON text."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _name_answers(run: str) -> str:
    """Return the name of a run's file of answers."""
    return f"answers-{re.sub(r'[^A-Za-z0-9_.-]+', '_', run)}.jsonl"


def _describe_run(name: str, run: EvalRun) -> dict[str, Any]:
    """Return the summary of a run."""
    return {
        "run": name,
        "models": list(run.models),
        "file": _name_answers(name) if run.rows else None,
        "answers": len(run.rows),
        "left_out": dict(run.left_out),
        "asked_otherwise": run.asked_otherwise,
    }


def _describe_criterion(criterion: Criterion, scores: Sequence[StoredScore]) -> dict[str, Any]:
    """Return the summary of a criterion, with its comparison of scores."""
    summary: dict[str, Any] = {
        "name": criterion.value.get("name"),
        "type": criterion.value.get("type"),
        "file": criterion.file,
        "fault": criterion.fault,
        "scores": None,
    }
    if criterion.form is not None:
        stored = [each for each in scores if _belongs_to(each.result, criterion.value)]
        summary["scores"] = compare_scores(criterion.form, stored)
    return summary


def _belongs_to(result: Values, criterion: Values) -> bool:
    """Return whether a stored score belongs to a criterion: an export adds an id to the name."""
    name, own = str(result.get("name")), str(criterion.get("name"))
    if name in (own, criterion.get("id")):
        return True
    return re.fullmatch(rf"{re.escape(own)}-[0-9a-f]{{8}}(-[0-9a-f]+)*", name) is not None


def _describe_answers(run: Values, out: Path) -> str:
    """Return a run's answers as a sentence."""
    by = f" of {', '.join(run['models'])}" if run["models"] else ""
    where = "" if run["file"] is None else f"{out / run['file']}: "
    more = "".join(f"; {count} with {why}" for why, count in run["left_out"].items())
    if run["asked_otherwise"]:
        more += f"; {run['asked_otherwise']} were asked otherwise than test.jsonl asks"
    return f"{where}{run['answers']} answers{by} in run {run['run']}{more}."


def _describe_grader(grader: Values) -> str:
    """Return a grader's usability as a clause."""
    if grader["fault"] is not None:
        return f"kept, but no metric here: {grader['fault'].rstrip('.')}"
    scores = grader["scores"]
    if not scores["of"]:
        return f"{grader['type']}, no stored scores to compare with"
    if scores["skipped"] is not None:
        return f"{grader['type']}, not compared with {scores['of']} stored scores: " + str(
            scores["skipped"]
        ).rstrip(".")
    first = scores["first"]
    different = ""
    if first is not None:
        theirs, ours = (_format_value(first[key]) for key in ("theirs", "ours"))
        different = f"; the first that differs: {first['id']} (stored {theirs}, here {ours})"
    counted = f"{scores['agree']} of {scores['of']} stored scores"
    return f"{grader['type']}, agrees with {counted}{different}"


def _format_value(value: Any) -> str:
    """Return a score as text."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"{value:.4g}" if is_number else str(value)
