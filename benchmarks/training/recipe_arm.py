"""The arm of the seed experiment's recipe: plain `transformers.Trainer`, padded batches.

Examples grouped by length, padded to a multiple of 8 as its collator did, micro-batches
accumulated up to the batch, gradient checkpointing: what its notebooks ran, on today's
transformers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training.data import DataSet
from training.measure import Job, Measurement, Stopwatch, fix_batches, trainable
from tuneoff.models.loading import load_tokenizer
from tuneoff.training import memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MULTIPLE = 8


def measure(model: PreTrainedModel, data: DataSet, job: Job) -> Measurement:
    """One repetition."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    watch, at_once = Stopwatch(job), job.micro_batch_size
    tokenizer = load_tokenizer(job.base)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            **job.arguments(folder),
            per_device_train_batch_size=at_once,
            gradient_accumulation_steps=job.batch_size // at_once,
            train_sampling_strategy="group_by_length",
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=_rows(data),
            data_collator=DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=MULTIPLE),
            callbacks=[watch],
        )
        timed = fix_batches(trainer, job.batch_size, data.lengths, job)
        trainer.train()
    lengths = [[data.lengths[row] for row in batch] for batch in timed]
    return Measurement(
        examples=sum(map(len, timed)),
        seconds=watch.seconds,
        cpu_seconds=watch.cpu_seconds,
        tokens_in_data=sum(map(sum, lengths)),
        tokens_computed=sum(_padded(batch, at_once) for batch in lengths),
        peak_memory_bytes=memory.measure_peak_bytes(),
        trainable_parameters=trainable(model),
    )


def _rows(data: DataSet) -> Sequence[Mapping[str, Any]]:
    return [
        {
            "input_ids": list(example.input_ids),
            "attention_mask": [1] * len(example.input_ids),
            "labels": list(example.labels),
        }
        for example in data.examples
    ]


def _padded(lengths: Sequence[int], at_once: int) -> int:
    parts = [lengths[at : at + at_once] for at in range(0, len(lengths), at_once)]
    return sum(-(-max(part) // MULTIPLE) * MULTIPLE * len(part) for part in parts)
