"""`tuneoff import`: converts files of other tools to training rows, test rows and metrics.

A file's form is recognised by its first rows. The first of `FORMS` that knows them imports all
given files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tuneoff.errors import ConfigError, DataError
from tuneoff.imports import evals, log_summary, request_forms, request_log
from tuneoff.imports.options import ImportOptions
from tuneoff.imports.sources import find_files, read_first_rows

Row = Mapping[str, Any]
ImportSummary = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ImportForm:
    """A form of files that can be imported."""

    name: str
    """Its name in sentences."""
    recognize_rows: Callable[[Sequence[Row]], bool]
    """Returns whether a file's first rows are of this form."""
    import_files: Callable[[Sequence[Path], Path, ImportOptions], ImportSummary]
    """Writes the content of files to a folder, and returns a summary."""
    describe: Callable[[ImportSummary, Path], list[str]]
    """Returns the summary in lines for people."""
    options: frozenset[str]
    """The fields of `ImportOptions` that have an effect."""


# The most specific ones first.
FORMS: tuple[ImportForm, ...] = (
    ImportForm(
        "exports of OpenAI's evals",
        evals.recognize_rows,
        lambda files, out, options: evals.import_evals(files, out, options.reference),
        evals.describe_evals,
        frozenset({"reference"}),
    ),
    ImportForm(
        request_forms.FORM_NAMES,
        request_forms.recognize_rows,
        request_log.import_log,
        log_summary.describe_import,
        frozenset(each.name for each in fields(ImportOptions)) - {"reference"},
    ),
)


def import_files(
    sources: Sequence[Path], out: Path, options: ImportOptions
) -> tuple[ImportSummary, list[str]]:
    """Import files of any known form; return the summary as plain values and in lines.

    Args:
        sources: JSONL files, gzipped or not, JSON files, or folders of them.
        out: the folder to write.

    Raises:
        DataError: a source cannot be read, or its form is not known.
        ConfigError: an option does not fit, or `out` holds another import.
    """
    files = find_files(sources)
    rows = read_first_rows(files)
    form = next((form for form in FORMS if form.recognize_rows(rows)), None)
    if form is None:
        keys = ", ".join(rows[0]) or "none"
        raise DataError(
            f"{files[0]}: the form of its rows is not known (the first one's keys: {keys:.200}); "
            f"what can be imported: {'; '.join(form.name for form in FORMS)}."
        )
    _refuse_options(form, options)
    summary = form.import_files(files, out, options)
    return summary, form.describe(summary, out)


def _refuse_options(form: ImportForm, options: ImportOptions) -> None:
    """Raise ConfigError for an option that would do nothing."""
    for each in fields(options):
        if each.name not in form.options and getattr(options, each.name) != each.default:
            name = each.name.replace("_", "-")
            raise ConfigError(f"--{name}: it does nothing for {form.name}; drop it.")
