"""The query shapes of the SQL sample and the ways to ask for each."""

from __future__ import annotations

# By shape: the query, then its questions. `show` and `also` are columns that the query
# names nowhere else; `function` is MAX where `aggregate` is "maximum", and so on.
SHAPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "column": (
        "SELECT {show} FROM {table}",
        (
            "List the {show} of all {tables}.",
            "What is the {show} of every {table}?",
            "Give me the {show} for each of the {tables}.",
        ),
    ),
    "columns": (
        "SELECT {show}, {also} FROM {table}",
        (
            "List the {show} and {also} of all {tables}.",
            "What are the {show} and the {also} of every {table}?",
            "Give me {show} and {also} for each of the {tables}.",
        ),
    ),
    "where_word": (
        "SELECT {show} FROM {table} WHERE {word} = '{value}'",
        (
            "Show the {show} of {tables} whose {word} is {value}.",
            "What is the {show} of each {table} with {word} {value}?",
            "For {tables} that have {value} as {word}, list the {show}.",
        ),
    ),
    "lookup": (
        "SELECT {number} FROM {table} WHERE {title} = '{called}'",
        (
            "What is the {number} of the {table} with {title} {called}?",
            "Find the {number} for the {table} whose {title} is {called}.",
            "Tell me the {number} of the {table} that has {called} as {title}.",
        ),
    ),
    "where_more": (
        "SELECT {show} FROM {table} WHERE {number} > {limit}",
        (
            "Show the {show} of {tables} with {number} above {limit}.",
            "What is the {show} of each {table} whose {number} is greater than {limit}?",
            "List the {show} of {tables} that have more than {limit} {number}.",
        ),
    ),
    "where_less": (
        "SELECT {show} FROM {table} WHERE {number} < {limit}",
        (
            "Show the {show} of {tables} with {number} below {limit}.",
            "What is the {show} of each {table} whose {number} is less than {limit}?",
            "List the {show} of {tables} that have fewer than {limit} {number}.",
        ),
    ),
    "count": (
        "SELECT COUNT(*) FROM {table}",
        (
            "How many {tables} are there?",
            "Count all {tables}.",
            "What is the number of {tables}?",
            "Find out how many {tables} exist.",
        ),
    ),
    "count_where": (
        "SELECT COUNT(*) FROM {table} WHERE {word} = '{value}'",
        (
            "How many {tables} have {word} {value}?",
            "Count the {tables} whose {word} is {value}.",
            "What is the number of {tables} with {value} as {word}?",
        ),
    ),
    "aggregate": (
        "SELECT {function}({number}) FROM {table}",
        (
            "What is the {aggregate} {number} of all {tables}?",
            "Find the {aggregate} {number} over the {tables}.",
            "Tell me the {aggregate} {number} of a {table}.",
        ),
    ),
    "ascending": (
        "SELECT {show} FROM {table} ORDER BY {number} ASC",
        (
            "List the {show} of {tables} in ascending order of {number}.",
            "Show the {show} of all {tables}, lowest {number} first.",
            "Sort the {tables} by increasing {number} and give the {show}.",
        ),
    ),
    "descending": (
        "SELECT {show} FROM {table} ORDER BY {number} DESC",
        (
            "List the {show} of {tables} in descending order of {number}.",
            "Show the {show} of all {tables}, highest {number} first.",
            "Sort the {tables} by decreasing {number} and give the {show}.",
        ),
    ),
    "most": (
        "SELECT {show} FROM {table} ORDER BY {number} DESC LIMIT 1",
        (
            "What is the {show} of the {table} with the most {number}?",
            "Which {show} does the {table} with the largest {number} have?",
            "Of all {tables}, find the one with the top {number} and show its {show}.",
        ),
    ),
    "least": (
        "SELECT {show} FROM {table} ORDER BY {number} ASC LIMIT 1",
        (
            "What is the {show} of the {table} with the least {number}?",
            "Which {show} does the {table} with the smallest {number} have?",
            "Of all {tables}, find the one with the bottom {number} and show its {show}.",
        ),
    ),
    "distinct": (
        "SELECT DISTINCT {word} FROM {table}",
        (
            "What are the different values of {word} among {tables}?",
            "List each {word} of the {tables} only once.",
            "Show the distinct {word} of all {tables}.",
        ),
    ),
    "group_count": (
        "SELECT {word}, COUNT(*) FROM {table} GROUP BY {word}",
        (
            "How many {tables} are there for each {word}?",
            "Count the {tables} per {word}.",
            "Show every {word} with its number of {tables}.",
        ),
    ),
    "having": (
        "SELECT {word} FROM {table} GROUP BY {word} HAVING COUNT(*) > {often}",
        (
            "Which {word} do more than {often} {tables} share?",
            "Find each {word} that belongs to more than {often} {tables}.",
            "Show every {word} that has over {often} {tables}.",
        ),
    ),
    "join": (
        "SELECT T1.{show} FROM {table} AS T1 JOIN {parent} AS T2 ON T1.{key} = T2.{key}"
        " WHERE T2.{parent_word} = '{parent_value}'",
        (
            "Show the {show} of {tables} whose {parent} has {parent_word} {parent_value}.",
            "What is the {show} of each {table} at {parents} with {parent_word} {parent_value}?",
            "For {parents} that have {parent_value} as {parent_word}, list the {show} of {tables}.",
        ),
    ),
    "join_count": (
        "SELECT T2.{parent_title}, COUNT(*) FROM {table} AS T1 JOIN {parent} AS T2"
        " ON T1.{key} = T2.{key} GROUP BY T2.{parent_title}",
        (
            "How many {tables} does each {parent} have, by {parent_title}?",
            "Count the {tables} for each {parent_title} of the {parents}.",
            "Show the {parent_title} of {parents} with their number of {tables}.",
        ),
    ),
    "not_in": (
        "SELECT {parent_title} FROM {parent} WHERE {key} NOT IN (SELECT {key} FROM {table})",
        (
            "Show the {parent_title} of {parents} without any {table}.",
            "What is the {parent_title} of each {parent} that has no {tables}?",
            "List the {parent_title} of {parents} to which no {table} belongs.",
        ),
    ),
    "above_average": (
        "SELECT {show} FROM {table} WHERE {number} > (SELECT AVG({number}) FROM {table})",
        (
            "Show the {show} of {tables} with {number} above the average.",
            "What is the {show} of each {table} whose {number} is greater than average?",
            "List the {show} of {tables} that beat the mean {number}.",
        ),
    ),
}
PARENT_SHAPES = ("join", "join_count", "not_in")  # here `table` must be the child
AGGREGATES = {"maximum": "MAX", "minimum": "MIN", "average": "AVG", "total": "SUM"}
