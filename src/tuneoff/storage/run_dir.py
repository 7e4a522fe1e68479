"""The run directory: every read and write of it.

    runs/NAME/
      bakeoff.yaml                       the resolved file; resuming with a changed one is refused
      events.jsonl                       events with their times, and the ledger (no secrets)
      data/{train,validation,test}.jsonl examples as used, with content hashes
      data/today.json                    the date given to chat templates
      data/fresh-data.json               during `--fresh-data`: new rows, what is kept
      data/groups.jsonl                  the scorer's groups of test examples (a query's hardness)
      contenders/NAME/
        training.json                    tokens, steps, seconds, peak memory, verdict
        loss.jsonl                       step, examples seen, train loss, validation loss
        learning_rates.jsonl             rates that `learning_rate: search` tried
        adapter/ or model/               safetensors with a model card
        job.json                         hosted: written before and after each paid call
        batch.json                       `batch: true`: the same for each batch of answers
        upload/                          hosted: the files as they were sent
        exchanges.jsonl                  hosted, with `record: true`: the cassette
        checkpoints/                     during training; removed when it is complete
        processes/                       during multi-process training: messages and logs
        cluster/  storage-key            during training on a cluster: its files, or their place
        epochs/step-N/                   where asked for, the weights at the ends of the last epochs
        predictions.jsonl                appended as answers arrive; with `samples`, a row each
        answers-before/                  all answers as they were before `--fresh-data` moved some
        prompt.json                      hashes of the test prompts as this contender sees them,
                                         and notes about its chat template
        serving.json                     latency of test prompts sent one at a time; own models:
                                         throughput, too
        planned.json                     planned cost of training when the run began
        scores.jsonl                     per answer, every metric and its verdict
        scoring.json                     version of the rules behind these scores
        details.jsonl                    results of wrong answers and their references, capped
        recorded.json                    hash of the file that recorded answers came from
        error.json                       why the contender failed, if it did
        seed-0/  seed-1/ …               with several seeds, these files of each, except error.json
                                         and planned.json, which are the contender's
        part-0.25/ …                     the same for training on a fraction of the examples
      baselines/NAME/                    baseline.json, predictions.jsonl, scores.jsonl and
                                         scoring.json of answers without a model
      judgements.jsonl                   questions to judges and their answers (paid for)
      labels.jsonl                       human labels of the same answers (`tuneoff label`)
      results.json                       everything the report shows
      report.html  report.md  charts/*.svg
      results.csv                        the same figures, a row for each contender and metric
      examples.jsonl                     every test example and answer, where the page has only some
      exports/CONTENDER-FORMAT/          written by `tuneoff export`

`files.py` says how files are written so that a kill leaves no half.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tuneoff import environment
from tuneoff.errors import RunDirectoryError
from tuneoff.records import (
    SPLITS,
    BaselineRecord,
    Example,
    LossRow,
    PlannedRecord,
    Prediction,
    PromptRecord,
    ScoredRow,
    ServingRecord,
    Split,
    TrainingRecord,
    from_dict,
    to_dict,
    to_json,
    to_row,
)
from tuneoff.results import Results
from tuneoff.storage.files import append_lines, read_lines, remove_folder, write_lines, write_text

T = TypeVar("T")


class ContenderDir:
    """The folder of one contender, or of one of its training variants, which looks the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.adapter = path / "adapter"
        self.model = path / "model"
        self.checkpoints = path / "checkpoints"
        self.exchanges = path / "exchanges.jsonl"
        self.epochs = path / "epochs"

    def seed(self, seed: int) -> ContenderDir:
        """Return the folder of one of several seeds."""
        return ContenderDir(self.path / f"seed-{seed}")

    def part(self, fraction: float) -> ContenderDir:
        """Return the folder of the training on a fraction of the examples."""
        return ContenderDir(self.path / f"part-{fraction}")

    def epoch(self, step: int) -> Path:
        """Return the adapter or model as it was after a step that ended an epoch."""
        return self.epochs / f"step-{step}"

    def siblings(self) -> list[ContenderDir]:
        """Return the other contenders' folders."""
        return [
            folder for folder in list_contender_dirs(self.path.parent) if folder.path != self.path
        ]

    def weights(self) -> Path | None:
        """Return the trained adapter or model, once it is complete."""
        return next((p for p in (self.adapter, self.model) if p.is_dir()), None)

    def list_weights(self) -> list[Path]:
        """Return the weights of every seed, where there are several."""
        folders = [self, *(ContenderDir(path) for path in sorted(self.path.glob("seed-*")))]
        return [weights for folder in folders if (weights := folder.weights()) is not None]

    def predictions(self) -> dict[str, Prediction]:
        """Return the first samples' answers so far, by example id."""
        return {id: answer for (id, sample), answer in self.answers().items() if sample == 0}

    def answers(self) -> dict[tuple[str, int], Prediction]:
        """Return all answers so far by example id and sample; of a repeated one the first."""
        answers: dict[tuple[str, int], Prediction] = {}
        for row in read_lines(self.path / "predictions.jsonl"):
            answers.setdefault((row["id"], row.get("sample", 0)), from_dict(Prediction, row))
        return answers

    def drop_answers_if_source_changed(self, sha256: str) -> None:
        """Drop answers that were read from a file with other content."""
        path = self.path / "recorded.json"
        before = json.loads(path.read_bytes())["sha256"] if path.exists() else None
        if before not in (None, sha256):
            (self.path / "predictions.jsonl").unlink(missing_ok=True)
        if before != sha256:
            write_text(path, json.dumps({"sha256": sha256}) + "\n")

    def append_predictions(self, rows: Iterable[Prediction]) -> None:
        append_lines(self.path / "predictions.jsonl", map(to_row, rows))

    def training(self) -> TrainingRecord | None:
        """Return the training record; None before training."""
        return _read_record(self.path / "training.json", TrainingRecord)

    def write_training(self, record: TrainingRecord) -> None:
        write_text(self.path / "training.json", to_json(record, indent=2) + "\n")

    def loss(self) -> tuple[LossRow, ...]:
        return tuple(from_dict(LossRow, row) for row in read_lines(self.path / "loss.jsonl"))

    def append_loss(self, row: LossRow) -> None:
        append_lines(self.path / "loss.jsonl", [to_dict(row)])

    def write_loss(self, rows: Iterable[LossRow]) -> None:
        write_lines(self.path / "loss.jsonl", map(to_dict, rows))

    def truncate_loss(self, after_step: int) -> None:
        """Drop rows past the checkpoint that training resumes from."""
        self.write_loss([row for row in self.loss() if row.step <= after_step])

    def learning_rates(self) -> dict[float, float | None]:
        """Return the validation loss of each rate that was tried; None: it diverged."""
        rows = read_lines(self.path / "learning_rates.jsonl")
        return {float(row["learning_rate"]): row["validation"] for row in rows}

    def write_learning_rates(self, losses: Mapping[float, float | None]) -> None:
        rows = [{"learning_rate": rate, "validation": loss} for rate, loss in losses.items()]
        write_lines(self.path / "learning_rates.jsonl", rows)

    def scores(self) -> dict[str, ScoredRow]:
        """Return the first samples' scored rows by example id; left-out rows have no scores."""
        return {id: row for (id, sample), row in self.all_scores().items() if sample == 0}

    def all_scores(self) -> dict[tuple[str, int], ScoredRow]:
        """Return the scored rows of all samples by example id and sample."""
        rows = read_lines(self.path / "scores.jsonl")
        return {(row["id"], row.get("sample", 0)): from_dict(ScoredRow, row) for row in rows}

    def has_scores(self) -> bool:
        return (self.path / "scores.jsonl").exists()

    def write_scores(self, rows: Iterable[ScoredRow]) -> None:
        write_lines(self.path / "scores.jsonl", map(to_row, rows))

    def write_scoring_rules(self, rules: Mapping[str, int]) -> None:
        write_text(self.path / "scoring.json", json.dumps({"rules": dict(rules)}) + "\n")

    def scoring_rules(self) -> dict[str, int]:
        """Return the version of the rules behind the scores; empty for scores without one."""
        path = self.path / "scoring.json"
        if not path.exists():
            return {}
        rules: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))["rules"]
        return rules

    def details(self) -> dict[str, dict[str, Any]]:
        """Return result tables by example id (`scoring/sql/judge.py`)."""
        return {row["id"]: row for row in read_lines(self.path / "details.jsonl")}

    def write_details(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace the result tables; without rows there is no file."""
        if rows:
            write_lines(self.path / "details.jsonl", rows)
        else:
            (self.path / "details.jsonl").unlink(missing_ok=True)

    def serving(self) -> ServingRecord | None:
        """Return the serving record; None before it was measured."""
        return _read_record(self.path / "serving.json", ServingRecord)

    def write_serving(self, record: ServingRecord) -> None:
        write_text(self.path / "serving.json", to_json(record, indent=2) + "\n")

    def planned(self) -> PlannedRecord | None:
        """Return the planned cost of training; None where there is none."""
        return _read_record(self.path / "planned.json", PlannedRecord)

    def write_planned(self, record: PlannedRecord) -> None:
        write_text(self.path / "planned.json", to_json(record) + "\n")

    def error(self) -> str | None:
        """Return why the contender failed; None if it did not."""
        path = self.path / "error.json"
        return str(json.loads(path.read_bytes())["error"]) if path.exists() else None

    def write_error(self, error: str | None) -> None:
        """Write why the contender failed; None removes the file."""
        path = self.path / "error.json"
        if error is None:
            path.unlink(missing_ok=True)
        else:
            write_text(path, json.dumps({"error": error}, ensure_ascii=False) + "\n")

    def job(self) -> dict[str, Any]:
        """Return the facts of a hosted job; empty before the first paid call was prepared."""
        path = self.path / "job.json"
        facts: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        return facts

    def write_job(self, facts: Mapping[str, Any]) -> None:
        write_text(self.path / "job.json", json.dumps(facts, ensure_ascii=False, indent=2) + "\n")

    def batches(self) -> list[dict[str, Any]]:
        """Return the facts of the batches of answers, the first one first."""
        path = self.path / "batch.json"
        batches: list[dict[str, Any]] = json.loads(path.read_bytes()) if path.exists() else []
        return batches

    def write_batches(self, batches: Sequence[Mapping[str, Any]]) -> None:
        write_text(self.path / "batch.json", json.dumps(batches, ensure_ascii=False) + "\n")

    def has_paid_work(self) -> bool:
        """Return whether a job or a batch was, or may have been, created at a provider."""
        job = self.job()
        return bool(job.get("job_id") or job.get("look_until")) or any(
            batch["batch_id"] or batch["look_until"] for batch in self.batches()
        )

    def upload(self, name: str) -> Path:
        """Return the path of an uploaded file."""
        return self.path / "upload" / name

    def write_upload(self, name: str, text: str) -> Path:
        """Write a file to upload, once, because its name holds its hash; return its path."""
        path = self.upload(name)
        if not path.exists():
            write_text(path, text)
        return path

    def prompt(self) -> PromptRecord | None:
        """Return the prompt record; None before the first answer."""
        return _read_record(self.path / "prompt.json", PromptRecord)

    def write_prompt(self, record: PromptRecord) -> None:
        write_text(self.path / "prompt.json", to_json(record) + "\n")

    def clear(self) -> None:
        """Forget everything about this contender (`--fresh`): all of it or, killed, nothing."""
        remove_folder(self.path)


class BaselineDir:
    """A baseline's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(
        self,
        record: BaselineRecord,
        predictions: Iterable[Prediction],
        scores: Iterable[ScoredRow],
        rules: Mapping[str, int],
    ) -> None:
        """Write the whole baseline. The record comes last: without it there is no baseline."""
        folder = ContenderDir(self.path)
        self.clear()
        folder.append_predictions(predictions)
        folder.write_scores(scores)
        folder.write_scoring_rules(rules)
        write_text(self.path / "baseline.json", to_json(record) + "\n")

    def record(self) -> BaselineRecord | None:
        """Return the baseline's record; None where it was not made."""
        return _read_record(self.path / "baseline.json", BaselineRecord)

    def answers(self) -> dict[str, str]:
        """Return its answers by example id."""
        return {
            id: prediction.prediction
            for id, prediction in ContenderDir(self.path).predictions().items()
        }

    def clear(self) -> None:
        """Forget it; it costs nothing to make again."""
        remove_folder(self.path)

    def scores(self) -> dict[str, ScoredRow]:
        """Return the scored rows by example id."""
        return ContenderDir(self.path).scores()


def list_contender_dirs(folder: Path) -> list[ContenderDir]:
    """Return the contenders' folders below a folder, by name."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [ContenderDir(child) for child in paths if child.is_dir() and child.name[0] != "."]


# The folder of a contender that keeps nothing.
NULL_DIR = ContenderDir(Path(os.devnull))


@contextlib.contextmanager
def lock_run_dir(path: Path) -> Iterator[None]:
    """Lock a run directory, so that no other process works in it.

    Two processes that pay for the same job would pay twice. The lock is on the folder itself and
    ends with the process, however that ends.

    Raises:
        RunDirectoryError: another process works in it.
    """
    created = [parent for parent in (path, *path.parents) if not parent.exists()]
    path.mkdir(parents=True, exist_ok=True)
    folder = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunDirectoryError(
                f"{path}: another process is carrying out this run; wait for its end, or give "
                "another --run-dir."
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(folder)
        with contextlib.suppress(OSError):
            for parent in created:
                parent.rmdir()  # rejected before anything was written


class RunDir:
    """A run directory that exists and belongs to one bake-off file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / "data"
        self.charts = path / "charts"
        self.events = path / "events.jsonl"
        self.judgements = path / "judgements.jsonl"
        self.labels = path / "labels.jsonl"
        self.all_examples = path / "examples.jsonl"

    def contender(self, name: str) -> ContenderDir:
        return ContenderDir(self.path / "contenders" / name)

    def contenders(self) -> list[ContenderDir]:
        """Return the contenders' folders, whether the bake-off file still names them or not."""
        return list_contender_dirs(self.path / "contenders")

    def baseline(self, name: str) -> BaselineDir:
        """Return the folder of a baseline."""
        return BaselineDir(self.path / "baselines" / name.replace(" ", "-"))

    def clear(self) -> None:
        """Forget the whole run (`--fresh`), touching only what a run writes.

        The file that makes the folder a run directory goes last, so that a kill in between leaves
        one.
        """
        for folder in (self.data, self.charts, self.path / "contenders", self.path / "baselines"):
            shutil.rmtree(folder, ignore_errors=True)
        for name in (
            "events.jsonl",
            "judgements.jsonl",
            "results.json",
            "report.html",
            "report.md",
            "results.csv",
            "examples.jsonl",
            "bakeoff.yaml",
        ):
            (self.path / name).unlink(missing_ok=True)

    def event(self, kind: str, **facts: Any) -> None:
        """Append an event with its time in UTC."""
        now = environment.now().isoformat(timespec="seconds")
        append_lines(self.events, [{"at": now, "event": kind, **facts}])

    def write_examples(self, split: Split, rows: Iterable[Mapping[str, Any]]) -> None:
        write_lines(self.data / f"{split}.jsonl", rows)

    def examples(self, split: Split) -> list[Example]:
        """Return the examples as used; empty when the split was not written yet."""
        return list(self.iterate_examples(split))

    def iterate_examples(self, split: Split) -> Iterator[Example]:
        """Yield the examples as used."""
        for row in read_lines(self.data / f"{split}.jsonl"):
            yield Example(row["id"], row["inputs"], row["completion"], row["meta"])

    def groups(self) -> dict[str, dict[str, str]]:
        """Return the scorer's groups of test examples by id; empty where it has none."""
        return {row["id"]: row["groups"] for row in read_lines(self.data / "groups.jsonl")}

    def write_groups(self, groups: Mapping[str, Mapping[str, str]]) -> None:
        """Write the scorer's groups of test examples, if there are any."""
        if not groups:
            return
        rows = ({"id": id, "groups": dict(example_groups)} for id, example_groups in groups.items())
        write_lines(self.data / "groups.jsonl", rows)

    def today(self) -> datetime.date:
        """Return the date given to chat templates, the same for the whole run.

        It is the day on which the run began; for a run that does not store it, the day of its first
        event.
        """
        path = self.data / "today.json"
        if path.exists():
            return datetime.date.fromisoformat(json.loads(path.read_bytes())["today"])
        first = next(read_lines(self.events), None)
        return datetime.date.fromisoformat(first["at"][:10]) if first else environment.today()

    def save_today(self) -> None:
        """Store that date, unless it is stored."""
        path = self.data / "today.json"
        if not path.exists():
            write_text(path, json.dumps({"today": self.today().isoformat()}) + "\n")

    def has_data(self) -> bool:
        return all((self.data / f"{split}.jsonl").exists() for split in SPLITS)

    def results(self) -> Results:
        """Return the results in `results.json`.

        Raises:
            RunDirectoryError: there is none, or it has another schema.
        """
        path = self.path / "results.json"
        if not path.exists():
            raise RunDirectoryError(
                f"{self.path}: there is no results.json in it; give a run directory that "
                "`tuneoff run` has finished."
            )
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if value.get("schema") != 1:
                raise ValueError(f"schema {value.get('schema')!r}")
            return from_dict(Results, value)
        except (ValueError, AttributeError) as error:
            first = str(error).splitlines()[0]
            raise RunDirectoryError(
                f"{path}: this is not a results.json of schema 1 ({first}); "
                "run the bake-off again to write it anew."
            ) from None

    def write_results(self, results: Results) -> None:
        write_text(self.path / "results.json", to_json(results, indent=2) + "\n")


def _read_record(path: Path, kind: type[T]) -> T | None:
    """Return the record in a JSON file; None where there is no file."""
    if not path.exists():
        return None
    return from_dict(kind, json.loads(path.read_text(encoding="utf-8")))
