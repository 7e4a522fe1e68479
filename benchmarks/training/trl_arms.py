"""The arms of TRL's `SFTTrainer`: plain, packing, group_by_length.

Rows come tokenized, with `input_ids` and `labels`, which `SFTTrainer` takes as they are. Its
defaults stay on: the fused head that never holds the logits of the whole batch, entropy and
token accuracy measured every step, gradient clipping. Changed are:

* `bf16` and `gradient_checkpointing`, both on by default: off, as in every arm;
* logs, checkpoints, evaluation: off, as in every arm;
* `max_length`: its 1,024, or the model's positions where an example is longer, so that
  nothing is cut.

plain and group_by_length compute the whole batch at once where its padded tokens fit into
memory, else (Spider with full schemas) a part of it, and accumulate: `micro_batch_size`.

packing: the default strategy (best-fit decreasing) turns padding-free batches on, which lay
all rows of a batch end to end. That wants flash attention, which no CPU has; SDPA is then given
a dense mask over the whole length, correct, but its work grows with the square of it. So this
arm computes one packed row at a time and accumulates as many as hold `batch_size` examples on
average: the same optimizer step, and faster than all rows at once.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

from training.data import DataSet
from training.measure import Job, Measurement, Stopwatch, fix_batches, trainable
from tuneoff.models.loading import count_positions, load_tokenizer
from tuneoff.training import memory

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel

DEFAULT_LENGTH = 1024
MODES = ("plain", "packing", "group_by_length")


def measure(mode: str, model: PreTrainedModel, data: DataSet, job: Job) -> Measurement:
    """One repetition of one mode."""
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    watch = Stopwatch(job)
    packing = mode == "packing"
    max_length = (
        DEFAULT_LENGTH if max(data.lengths) <= DEFAULT_LENGTH else count_positions(job.base)
    )
    rows, at_once = job.batch_size, job.micro_batch_size
    if packing:
        mean = sum(data.lengths) / len(data.lengths)
        rows, at_once = max(1, round(job.batch_size * mean / max_length)), 1
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            **job.arguments(folder),
            per_device_train_batch_size=at_once,
            gradient_accumulation_steps=rows // at_once,
            max_length=max_length,
            packing=packing,
            train_sampling_strategy="group_by_length" if mode == "group_by_length" else "random",
        )
        trainer: Any = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=_dataset(data),
            processing_class=load_tokenizer(job.base),
            callbacks=[watch],
        )
        contents = trainer.train_dataset["seq_lengths"] if packing else [[n] for n in data.lengths]
        tokens = [sum(lengths) for lengths in contents]
        timed = fix_batches(trainer, rows, tokens, job)
        trainer.train()
    return Measurement(
        examples=sum(len(contents[row]) for batch in timed for row in batch),
        seconds=watch.seconds,
        cpu_seconds=watch.cpu_seconds,
        tokens_in_data=sum(tokens[row] for batch in timed for row in batch),
        tokens_computed=sum(_padded([tokens[i] for i in batch], at_once) for batch in timed),
        peak_memory_bytes=memory.measure_peak_bytes(),
        trainable_parameters=trainable(model),
    )


def _dataset(data: DataSet) -> datasets.Dataset:
    import datasets

    return datasets.Dataset.from_dict(
        {
            "input_ids": [list(example.input_ids) for example in data.examples],
            "labels": [list(example.labels) for example in data.examples],
        }
    )


def _padded(lengths: list[int], at_once: int) -> int:
    """Tokens computed for rows of these lengths, padding included."""
    parts = [lengths[at : at + at_once] for at in range(0, len(lengths), at_once)]
    return sum(max(part) * len(part) for part in parts)
