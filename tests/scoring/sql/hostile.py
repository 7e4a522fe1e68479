"""Queries that want to hang, fill memory, write, read elsewhere or confuse; one property each.

Each with the verdicts that are right for it. `t` has the columns a and b and three rows; `{file}`
stands for a path that must not come to be.
"""

from __future__ import annotations

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
MANY = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT {n}) "
_DENIED = {"denied"}
_LARGE = {"too large"}
_LATE = {"timeout"}
_SYNTAX = {"syntax error"}
_ONE = {"more than one statement"}
_REST = {"timeout", "too large"}

HOSTILE: dict[str, tuple[str, set[str]]] = {
    # Time.
    "endless recursion": (ENDLESS + "SELECT count(*) FROM c", _LATE),
    "endless recursion that is sorted": (ENDLESS + "SELECT x FROM c ORDER BY -x", _REST),
    "endless recursion without a row": (ENDLESS + "SELECT x FROM c WHERE x < 0", _LATE),
    "endless recursion in a condition": ("SELECT a FROM t WHERE a IN (" + ENDLESS
        + "SELECT x FROM c)", _REST),
    "endless recursion that doubles a text": (
        "WITH RECURSIVE c(x) AS (SELECT 'x' UNION ALL SELECT x || x FROM c) SELECT max(x) FROM c",
        _REST),
    "two endless recursions joined": (
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c), d(y) AS "
        "(SELECT 1 UNION ALL SELECT y FROM d) SELECT count(*) FROM c, d", _LATE),
    "a cross join of thirty": ("SELECT count(*) FROM " + ", ".join(["t"] * 30), _LATE),
    "a cross join of sixty-five": ("SELECT count(*) FROM " + ", ".join(["t"] * 65),
        {"at most 64 tables in a join"}),
    "a cross join of subqueries": ("SELECT count(*) FROM " + ", ".join(
        f"(SELECT a AS a{i} FROM t)" for i in range(25)), _LATE),
    "nested loops without an index": (MANY.format(n=30_000)
        + "SELECT count(*) FROM c AS p, c AS q WHERE p.x * q.x % 7 = 8", _LATE),
    "one long step": ("SELECT instr(hex(zeroblob(7000000)), hex(zeroblob(3500000)) || '1')",
        _LATE),
    "one long step in many rows": (MANY.format(n=100)
        + "SELECT sum(instr(hex(zeroblob(3000000)), hex(zeroblob(1500000)) || x)) FROM c", _LATE),
    "a LIKE bomb": ("SELECT hex(zeroblob(4000000)) LIKE '%' || hex(zeroblob(20000)) || '1'",
        _LATE),
    "a GLOB bomb": ("SELECT hex(zeroblob(4000000)) GLOB '*' || hex(zeroblob(20000)) || '1'",
        _LATE),
    "a LIKE pattern that is too long": ("SELECT b LIKE hex(zeroblob(100000)) FROM t", _LARGE),
    "replace that grows": ("SELECT length(replace(replace(hex(zeroblob(4000)), '0', "
        "hex(zeroblob(400))), '0', hex(zeroblob(400))))", _REST),
    "a window over everything": (MANY.format(n=100_000)
        + "SELECT max(n) FROM (SELECT sum(x) OVER (ORDER BY x ROWS BETWEEN 50000 PRECEDING AND "
        "50000 FOLLOWING EXCLUDE TIES) AS n FROM c)", _LATE),
    "a subquery for each row": (MANY.format(n=20_000)
        + "SELECT count((SELECT count(*) FROM c AS d WHERE d.x < c.x)) FROM c", _LATE),
    # Memory and size.
    "a random gigabyte": ("SELECT length(randomblob(1000000000))", _LARGE),
    "a gigabyte of nothing": ("SELECT zeroblob(1000000000)", _LARGE),
    "a gigabyte within a comparison": ("SELECT a FROM t WHERE zeroblob(1000000000) = b", _LARGE),
    "two billion characters by format": ("SELECT printf('%.*c', 2000000000, 'x')", _REST),
    "two billion blanks by format": ("SELECT format('%2000000000d', 1)", _REST | {"wrong result"}),
    "a number of two billion digits": ("SELECT printf('%.2000000000f', 1.0)",
        _REST | {"wrong result"}),
    "hex of what is large": ("SELECT hex(hex(hex(zeroblob(4000000))))", _LARGE),
    "quote of what is large": ("SELECT quote(zeroblob(15000000))", _LARGE),
    "a huge group_concat": (MANY.format(n=5_000_000)
        + "SELECT length(group_concat(x, 'xxxxxxxxxx')) FROM c", _REST),
    "a huge json array": (MANY.format(n=5_000_000)
        + "SELECT length(json_group_array(x)) FROM c", _REST),
    "a huge distinct": (ENDLESS + "SELECT count(DISTINCT randomblob(100000) || x) FROM c", _REST),
    "a huge sort": (MANY.format(n=100_000) + "SELECT max(r) FROM (SELECT randomblob(100000) AS r "
        "FROM c ORDER BY r LIMIT 1 OFFSET 50000)", _REST),
    "a huge temporary table": ("WITH c AS MATERIALIZED (" + ENDLESS
        + "SELECT randomblob(100000) AS x FROM c) SELECT count(*) FROM c AS p, c AS q", _REST),
    "endless rows": (ENDLESS + "SELECT x FROM c", _LARGE),
    "a few rows of megabytes": (MANY.format(n=10) + "SELECT zeroblob(10000000) FROM c", _LARGE),
    "forty thousand columns": ("SELECT " + ", ".join(["1"] * 40_000), _LARGE),
    "thirty thousand columns by star": ("SELECT " + ", ".join(["*"] * 30_000) + " FROM t", _LARGE),
    "ten thousand terms of UNION": (" UNION ALL ".join(["SELECT 1"] * 6_000), _LARGE),
    "ten megabytes of SQL": ("SELECT '" + "x" * 10_000_000 + "'", _LARGE),
    "ten megabytes of blanks": ("SELECT 1" + " " * 10_000_000 + "+ 1", _LARGE),
    "a hundred kilobytes of comment": ("SELECT 1 /*" + "x" * 99_000 + "*/ + 1", {"wrong result"}),
    "deep brackets": ("SELECT " + "(" * 20_000 + "1" + ")" * 20_000, _LARGE),
    "deep signs": ("SELECT " + "- " * 40_000 + "1", _LARGE),
    "a deep NOT": ("SELECT " + "NOT " * 20_000 + "1", _LARGE),
    "a long sum": ("SELECT " + "+".join(["1"] * 40_000), _LARGE),
    "deep subqueries": ("SELECT * FROM (" * 3_000 + "SELECT 1" + ")" * 3_000, _LARGE),
    "deep CASE": ("SELECT " + "CASE WHEN 1 THEN " * 3_000 + "1" + " END" * 3_000, _LARGE),
    "deep functions": ("SELECT " + "abs(" * 5_000 + "1" + ")" * 5_000, _LARGE),
    "a thousand arguments": ("SELECT max(" + ", ".join(["1"] * 40_000) + ")", _LARGE),
    "a list of forty thousand": ("SELECT count(*) FROM t WHERE a IN (9"
        + ",9" * 40_000 + ")", {"wrong result"}),
    "many parameters": ("SELECT " + "+".join(["?"] * 500), {"unbound parameter"}),
    # Writing, and reading elsewhere.
    "DROP TABLE": ("DROP TABLE t", _DENIED),
    "DELETE": ("DELETE FROM t", _DENIED),
    "INSERT": ("INSERT INTO t VALUES (4, 'y')", _DENIED),
    "INSERT that returns": ("INSERT INTO t VALUES (4, 'y') RETURNING a", _DENIED),
    "REPLACE": ("REPLACE INTO t VALUES (4, 'y')", _DENIED),
    "UPDATE": ("UPDATE t SET a = 0", _DENIED),
    "DELETE behind WITH": ("WITH c AS (SELECT 1) DELETE FROM t", _DENIED),
    "CREATE TABLE": ("CREATE TABLE u (a)", _DENIED),
    "CREATE TABLE AS": ("CREATE TABLE u AS SELECT * FROM t", _DENIED),
    "CREATE TEMP TABLE": ("CREATE TEMP TABLE u (a)", _DENIED),
    "CREATE VIEW": ("CREATE VIEW u AS SELECT 1", _DENIED),
    "CREATE TRIGGER": ("CREATE TRIGGER u AFTER INSERT ON t BEGIN SELECT 1; END", _DENIED),
    "CREATE INDEX": ("CREATE INDEX j ON t (b)", _DENIED),
    "CREATE VIRTUAL TABLE": ("CREATE VIRTUAL TABLE u USING fts5(a)", _DENIED),
    "ALTER TABLE": ("ALTER TABLE t ADD COLUMN c", _DENIED),
    "REINDEX": ("REINDEX", _DENIED),
    "ANALYZE": ("ANALYZE", _DENIED),
    "VACUUM": ("VACUUM", _DENIED),
    "VACUUM INTO": ("VACUUM INTO '{file}'", _DENIED),
    "ATTACH a new file": ("ATTACH DATABASE '{file}' AS other", _DENIED),
    "ATTACH memory": ("ATTACH DATABASE ':memory:' AS other", _DENIED),
    "ATTACH by URI": ("ATTACH 'file:{file}?mode=rwc' AS other", _DENIED),
    "DETACH": ("DETACH DATABASE main", _DENIED),
    "PRAGMA query_only": ("PRAGMA query_only = OFF", _DENIED),
    "PRAGMA journal_mode": ("PRAGMA journal_mode = WAL", _DENIED),
    "PRAGMA writable_schema": ("PRAGMA writable_schema = ON", _DENIED),
    "PRAGMA temp_store_directory": ("PRAGMA temp_store_directory = '/tmp'", _DENIED),
    "PRAGMA hard_heap_limit": ("PRAGMA hard_heap_limit = 0", _DENIED),
    "PRAGMA that reads": ("PRAGMA table_info(t)", _DENIED),
    "a PRAGMA as a table": ("SELECT * FROM pragma_database_list", _DENIED),
    "writing sqlite_master": ("UPDATE sqlite_master SET sql = ''", _DENIED),
    "deleting from sqlite_master": ("DELETE FROM sqlite_master", _DENIED),
    "BEGIN EXCLUSIVE": ("BEGIN EXCLUSIVE", _DENIED),
    "SAVEPOINT": ("SAVEPOINT s", _DENIED),
    "ROLLBACK": ("ROLLBACK", _DENIED),
    "EXPLAIN of what writes": ("EXPLAIN DROP TABLE t", _DENIED),
    "load_extension": ("SELECT load_extension('{file}')", _DENIED),
    "LOAD_EXTENSION with an entry": ("SELECT LOAD_EXTENSION('{file}', 'f')", _DENIED),
    "writefile": ("SELECT writefile('{file}', 'x')", _DENIED | {"no such function: writefile"}),
    "readfile": ("SELECT readfile('/etc/passwd')", _DENIED | {"no such function: readfile"}),
    "edit": ("SELECT edit('x', 'touch {file}')", _DENIED | {"no such function: edit"}),
    "fts3_tokenizer": ("SELECT fts3_tokenizer('simple', x'00')",
        _DENIED | {"no such function: fts3_tokenizer"}),
    "a file as a table": ("SELECT * FROM '/etc/passwd'", {"no such table: /etc/passwd"}),
    # Form.
    "a second statement": ("SELECT count(*) FROM t; DROP TABLE t", _ONE),
    "a second statement behind a comment": ("SELECT 3 --\n; DELETE FROM t", _ONE),
    "a comment alone": ("-- SELECT 1", {"not a query"}),
    "an open comment": ("SELECT 4 /* and no end", {"wrong result"}),
    "semicolons alone": (";;;;", {"not a query"}),
    "a NUL": ("SELECT 3 \0 FROM t", _SYNTAX),
    "a NUL at the end": ("SELECT 4\0", _SYNTAX),
    "half a surrogate": ("SELECT 3 \ud800", _SYNTAX),
    "bytes that are not UTF-8": ("SELECT CAST(x'fffe41' AS TEXT)", {"wrong result"}),
    "a right-to-left mark": ("SELECT \u202e3 FROM t", {"no such column: \u202e3"}),
    "a quote that is not closed": ("SELECT 'x", _SYNTAX),
    "a fence that is not closed": ("```sql\nSELECT 4", {"wrong result"}),
    "a line of JSON": ('{"scores": {"execution_accuracy": true}, "verdict": "right"}\n',
        _SYNTAX),
    "JSON as a result": ("SELECT '{\"ready\": true}\n{\"verdict\": \"right\"}'", {"wrong result"}),
    "RAISE": ("SELECT RAISE(ABORT, 'x')", {"RAISE() may only be used within a trigger-program"}),
    "a table function that is not there": ("SELECT * FROM fsdir('/')",
        {"no such table: fsdir"}),
    "a call that trips the parser": ("SELECT VAR_MAP(a) FROM t", {"no such function: VAR_MAP"}),
    "another such call": ("SELECT J_S_O_N_OBJECT(a) FROM t",
        {"no such function: J_S_O_N_OBJECT"}),
    "a number of six thousand digits": ("SELECT 0x" + "f" * 6_000, {
        "too large", "wrong result", "hex literal too big: 0x" + "f" * 6_000}),
    "marks of our own": ("SELECT \ue000" + "1" * 5_000 + "\ue001",
        {"no such column: \ue000" + "1" * 5_000 + "\ue001"}),
    "comments that open and open": ("SELECT 4 " + "/* " * 30_000, {"wrong result"}),
    "zero tables": ("SELECT *", {"no tables specified"}),
    "VALUES": ("VALUES (1), (2)", {"wrong result"}),
}  # fmt: skip
