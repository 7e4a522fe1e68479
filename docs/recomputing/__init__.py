"""What `docs/recompute.py` computes with. Nothing here imports tuneoff."""
