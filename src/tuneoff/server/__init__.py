"""The OpenAI-shaped server: fine-tuning jobs and chat completions on open models.

    data directory (`--data-dir`)
      server.sqlite          files, jobs, events, checkpoints, models (WAL)
      worker.lock            which jobs are worked on (`claims.py`)
      files/ID.jsonl, .csv   uploads as they came, result files
      jobs/ID/               a contender's folder (`rundir.py`): loss.jsonl, adapter/, epochs/;
                             `leftovers.py` says what goes when

Names below the data directory are made here; nothing that a client sends becomes a path.
"""
