"""Two generated sample tasks, so that tuneoff can be tried offline on a small machine.

`functional`: a sentence about mountain huts becomes one call with attributes.
`sql`: a question about two tables becomes one SQLite query, with databases to run it on.
Both are made from a seed, small enough for a tiny model to learn in minutes, and export
`content_words()` and `templates()`: what no pretraining corpus of the shipped base may hold.
"""
