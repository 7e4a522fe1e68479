"""An OpenAI-compatible server: fine-tuning jobs and chat completions on open models.

    data directory (`--data-dir`)
      server.sqlite          files, jobs, events, checkpoints, models (WAL)
      worker.lock            one locked byte per running job (`server/store.py`)
      files/ID.jsonl, .csv   uploads as received, result files
      jobs/ID/               a contender's folder (`storage/run_dir.py`): loss.jsonl, adapter/,
                             epochs/; `server/cleanup.py` says what is deleted when

The server makes all names below the data directory. Nothing that a client sends becomes a path.
"""
