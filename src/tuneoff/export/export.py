"""Exports a tuned contender as an adapter, a merged model, or GGUF.

Everything is written into a folder beside the target, which is renamed when it is complete and
checked: the exported files are loaded again and must answer a sample of the test set as was scored
(`export/verify.py`). A difference is reported, with a warning where no answer is the same; with
`strict`, nothing is kept then.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuneoff.errors import ConfigError, RunDirectoryError
from tuneoff.export.options import build_export_options
from tuneoff.report.model_card import add_results
from tuneoff.storage.run_dir import RunDir, lock_run_dir


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export."""

    contender: str
    format: str
    out: str
    files: dict[str, int]
    """Sizes in bytes by file name."""
    parity: dict[str, Any] | None
    """How the exported model's answers compare with the scored ones; None: they could not be
    compared."""
    notes: tuple[str, ...]
    """Other lines that a user should know."""


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
    """Write a tuned contender's model into a folder of its own, and return what was written.

    Args:
        run: a run directory, or the data directory of `tuneoff serve`.
        contender: its name; of several seeds the first is used. A server's model is `ft:…`.
        format: `adapter`, `merged` or `gguf`.
        out: a new or empty folder. Default: `RUN/exports/CONTENDER-FORMAT`.
        dtype: of merged weights: `auto` (the base's), `float32`, `bf16` or `fp16`.
        outtype: of a GGUF file's weights: `f32`, `f16` (default), `bf16` or `q8_0`.
        strict: keep nothing unless it answers as it was scored.
        say: called with each line for the user.

    Raises:
        ConfigError: there is no such model, it does not have this form, the folder is not empty, or
            answers differ and `strict` is set.
        MissingExtraError: a package that the format needs is not installed.
    """
    options = build_export_options(format, dtype, outtype, strict)
    from tuneoff.export import formats, source

    tuned = source.find_tuned(Path(run), contender)
    folder = Path(
        out or Path(run) / "exports" / f"{formats.build_folder_name(contender)}-{format}"
    ).resolve()
    _check_target(folder)
    formats.check_exportable(tuned, options)
    notes: list[str] = []

    def note(line: str) -> None:
        """Report a line and keep it."""
        notes.append(line)
        say(line)

    with _replace_when_done(folder) as unfinished:
        checked = formats.EXPORTERS[format](
            source.add_served_answers(tuned), options, unfinished, note
        )
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


def _check_target(folder: Path) -> None:
    """Refuse a target that is a file, is not empty, or cannot be replaced.

    Raises:
        ConfigError: it is one of these.
    """
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
def _replace_when_done(folder: Path) -> Iterator[Path]:
    """Open a temporary folder that replaces the target if nothing fails."""
    with open_scratch_folder(
        folder.with_name(f".{folder.name}.part"), f"--out {folder}"
    ) as unfinished:
        yield unfinished
        if folder.exists():
            folder.rmdir()  # empty, as was checked before
        unfinished.rename(folder)


@contextmanager
def open_scratch_folder(folder: Path, wanted: str) -> Iterator[Path]:
    """Open an empty folder that only this process uses, and delete it at the end.

    Weights are large, so files that a killed process left in it are deleted first.

    Raises:
        ConfigError: another process uses it, or it cannot be made; the message starts with
            `wanted`.
    """
    with ExitStack() as held:
        try:
            held.enter_context(lock_run_dir(folder))
            for leftover in folder.iterdir():
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
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
