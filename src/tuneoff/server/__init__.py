"""The OpenAI-shaped server: fine-tuning jobs and chat completions on open models.

    data directory (`--data-dir`)
      server.sqlite          files, jobs, events, checkpoints, models (WAL)
      worker.lock            held by the one process that trains
      files/ID.jsonl, .csv   uploads as they came, result files
      jobs/ID/               a contender's folder (`rundir.py`): loss.jsonl, adapter/, ...

Names below the data directory are made here; nothing that a client sends becomes a path.
"""
