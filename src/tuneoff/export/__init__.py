"""A tuned contender in the form that its runtime wants: an adapter, a merged model, or GGUF.

Everything is written into a folder beside the wanted one, which is renamed when it is complete
and was checked: the exported files are loaded anew and must answer a sample of the test set as
was scored (`checking.py`). A difference is told, with a warning where no answer is the same, and
with `strict` nothing is kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuneoff.errors import ConfigError, RunDirectoryError
from tuneoff.export.options import options_of
from tuneoff.report.card import add_results
from tuneoff.rundir import RunDir, alone_in


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written where: `files` by name with their bytes. `parity` is how it answers (None:
    that could not be compared), `notes` is what else a user should know."""

    contender: str
    format: str
    out: str
    files: dict[str, int]
    parity: dict[str, Any] | None
    notes: tuple[str, ...]


def export_contender(
    run: Path | str,
    contender: str,
    format: str,
    out: Path | str | None = None,
    *,
    dtype: str | None = None,
    outtype: str | None = None,
    strict: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> Exported:
    """Writes a tuned contender's model into a folder of its own.

    Args:
        run: a run directory, or the data directory of `tuneoff serve`.
        contender: its name; of several seeds the first is meant. A server's model is `ft:…`.
        format: `adapter`, `merged` or `gguf`.
        out: a new or empty folder; left out, `RUN/exports/CONTENDER-FORMAT`.
        dtype: of merged weights: `auto` (the base's), `float32`, `bf16` or `fp16`.
        outtype: of a GGUF file's weights: `f32`, `f16` (left out), `bf16` or `q8_0`.
        strict: keep nothing unless it answers as it was scored.
        say: told each line that a user should read.

    Raises:
        ConfigError: there is no such model, it has no such form, the folder is not empty, or
            `strict` and answers differ.
        MissingExtraError: a package that the format needs is not installed.
    """
    options = options_of(format, dtype, outtype, strict)
    from tuneoff.export import forms, source

    tuned = source.find(Path(run), contender)
    folder = Path(
        out or Path(run) / "exports" / f"{forms.folder_name(contender)}-{format}"
    ).resolve()
    _refuse_taken(folder)
    forms.refuse(tuned, options)
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        say(line)

    with _beside(folder) as unfinished:
        checked = forms.FORMS[format](source.answered(tuned), options, unfinished, note)
        if (Path(run) / "results.json").is_file():
            add_results(unfinished / "README.md", RunDir(Path(run)).results(), contender)
        if checked is not None and not checked.parity.asked:
            note(f"{contender}: not checked, for it has no answers that could be compared.")
            checked = None
        if checked is not None:
            for line in checked.lines():
                say(line)
            for line in checked.parity.warnings():
                note(line)
        if strict and not (checked and checked.passed):
            raise ConfigError(
                f"--strict: {contender} does not answer as {format} as it did when it was "
                f"{tuned.was}; nothing was written."
            )
    files = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    parity = {**asdict(checked), "passed": checked.passed} if checked else None
    return Exported(contender, format, str(folder), files, parity, tuple(notes))


def _refuse_taken(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {folder}: this is a file; give a new or an empty folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"--out {folder}: the folder is not empty; give a new or an empty one.")
    if folder.is_mount() or folder == Path.cwd():
        raise ConfigError(
            f"--out {folder}: this folder cannot be replaced by the finished one; name a new one "
            "inside it."
        )


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the wanted one's place if nothing goes wrong."""
    with scratch(folder.with_name(f".{folder.name}.part"), f"--out {folder}") as unfinished:
        yield unfinished
        if folder.exists():
            folder.rmdir()  # empty, or it was refused
        unfinished.rename(folder)


@contextmanager
def scratch(folder: Path, wanted: str) -> Iterator[Path]:
    """An empty folder that is nobody else's meanwhile and is removed in the end, with what one that
    was killed left in it: weights are large.

    Raises:
        ConfigError: another process uses it, or it cannot be made; the message begins with what
            was wanted.
    """
    with ExitStack() as held:
        try:
            held.enter_context(alone_in(folder))
            for left in folder.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        except RunDirectoryError:
            raise ConfigError(
                f"{wanted}: another process writes there; wait for its end, or give another folder."
            ) from None
        except OSError as error:
            raise ConfigError(
                f"{wanted}: cannot be made ({error.strerror}); give another."
            ) from None
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
