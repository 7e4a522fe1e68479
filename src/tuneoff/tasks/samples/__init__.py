"""Two generated sample tasks, to try tuneoff offline on a small machine.

`functional`: a sentence about mountain huts becomes one call with attributes. `sql`: a question
about two tables becomes one SQLite query, with databases to run it on. Both are generated from a
seed, and a tiny model learns them in minutes. Both export `content_words()` and `templates()`: the
texts that no pretraining corpus of the shipped base may hold.
"""
