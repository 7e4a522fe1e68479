"""The parts of `training_speed.py`: data sets, arms, timing, summary."""
