"""The page without a browser: what is served to whom, that text stays text, that many jobs cost
no more than few, and the numbers of a curve."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from running import examples, request, server, upload

pytest.importorskip("fastapi")
from tuneoff.records import LossRow
from tuneoff.server.page import ASSETS, DEFAULT_LIMIT
from tuneoff.server.page_view import (
    HEIGHT,
    MAX_POINTS,
    build_loss_curve,
    format_age,
    format_file_size,
)
from tuneoff.server.store import Store
from tuneoff.storage.run_dir import ContenderDir

EVIL = "<script>alert(1)</script>\"'&{{ 7 * 7 }}"


def add_job(store: Store, id: str, status: str, **facts: Any) -> None:
    known = {
        "model": "random", "organization_id": "local", "training_file": "file-gone",
        "validation_file": None, "suffix": None, "seed": 1, "metadata": None,
        "resolved": {"n_epochs": 1, "batch_size": 8, "learning_rate_multiplier": 1.0},
    }  # fmt: skip
    with store.transaction() as connection:
        connection.execute(
            "INSERT INTO jobs (id, created_at, status, facts) VALUES (?, 1, ?, ?)",
            (id, status, json.dumps(known | facts)),
        )


def headers_of(port: int, path: str) -> tuple[int, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def content(port: int, query: str = "", **headers: str) -> str:
    status, body = request(port, "GET", f"/page/content{query}", headers=headers)
    assert status == 200, body
    return bytes(body).decode()


class Elements(HTMLParser):
    """Names of elements and attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("paged")


@pytest.fixture(scope="module")
def port(folder: Path, tiny_base: Path) -> Iterator[int]:
    with server(folder / "data", "--base", str(tiny_base)) as (port, _):
        yield port


@pytest.mark.parametrize(
    "path", ["/", "/page/content", *(f"/page/assets/{name}" for name in ASSETS)]
)
def test_every_part_is_served_with_its_safety(port: int, path: str) -> None:
    status, headers = headers_of(port, path)
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == ("no-cache" if "assets" in path else "no-store")


def test_what_is_not_there(port: int) -> None:
    for name in ("nothing.js", "..%2f..%2fpage.py", "shell.html.j2"):
        assert request(port, "GET", f"/page/assets/{name}")[0] == 404
    assert request(port, "GET", "/page/content?jobs=0")[0] == 400
    assert request(port, "GET", "/page/content?jobs=100000")[0] == 400
    assert not [
        p for p in request(port, "GET", "/openapi.json")[1]["paths"] if "page" in p or p == "/"
    ]


def test_without_the_key_there_is_nothing_to_see(folder: Path, tiny_base: Path) -> None:
    with server(folder / "keyed", "--base", str(tiny_base), keys="one") as (port, _):
        key = {"Authorization": "Bearer one"}
        assert upload(port, examples(10), headers=key)[0] == 200
        assert request(port, "GET", "/page/content")[0] == 401
        assert request(port, "GET", "/page/assets/../content")[0] == 404
        assert "x.jsonl" in content(port, **key)
        for path in ("/", *(f"/page/assets/{name}" for name in ASSETS)):
            status, body = request(port, "GET", path)
            assert status == 200
            assert tiny_base.name not in body.decode()
            assert "x.jsonl" not in body.decode()


def test_another_sites_page_reads_and_does_nothing(port: int) -> None:
    for path in ("/", "/page/content", "/page/assets/page.js"):
        assert request(port, "GET", path, headers={"Host": "attacker.example"})[0] == 403
        assert request(port, "GET", path, headers={"Origin": "http://attacker.example"})[0] == 403
    assert request(port, "POST", "/page/content")[0] == 405


def test_text_stays_text(port: int, folder: Path) -> None:
    store = Store(folder / "data")
    before = Elements(content(port))
    store.add_file("file-evil", EVIL + "\u202e.jsonl", "fine-tune", 10, 10)
    add_job(
        store, "ftjob-evil", "failed", suffix=EVIL, model=EVIL, training_file="file-evil",
        fine_tuned_model=f"ft:{EVIL}", error={"code": "x", "message": EVIL, "param": None},
    )  # fmt: skip
    store.add_event("ftjob-evil", EVIL, "error")
    ContenderDir(store.job_path("ftjob-evil")).append_loss(LossRow(1, 8, 0.5, 0.6))
    with store.transaction() as connection:
        connection.execute(
            "INSERT INTO models (id, created_at, base, job_id) VALUES (?, 1, ?, 'ftjob-evil')",
            (f"ft:{EVIL}", EVIL),
        )
    page = content(port, f"?opened=ftjob-evil&shut={'x' * 100}")
    found = Elements(page)
    assert found.text.count(EVIL) >= 6
    assert "script" not in found.names
    known = before.attributes | {"open"}
    assert not [name for name in found.attributes - known if name.startswith("on") or '"' in name]
    assert "\u202e" not in page
    assert "⟨U+202E⟩" in found.text


def test_many_jobs_cost_no_more_than_few(tmp_path: Path, tiny_base: Path) -> None:
    store = Store(tmp_path / "data")
    for number in range(DEFAULT_LIMIT + 1):
        add_job(store, f"ftjob-{number:06}", "cancelled")
    with server(tmp_path / "data", "--base", str(tiny_base)) as (port, _):
        few = content(port)
        with store.transaction() as connection:
            connection.executemany(
                "INSERT INTO jobs (id, created_at, status, facts) SELECT ?, 1, status, facts "
                "FROM jobs WHERE id = 'ftjob-000000'",
                ((f"ftjob-{number:06}",) for number in range(1000, 11_000)),
            )
        many = content(port)
        assert abs(len(many) - len(few)) < 200
        assert many.count('<li id="li-') == DEFAULT_LIMIT
        assert many.index("ftjob-010999") < many.index("ftjob-010998")
        assert "ftjob-000000" not in many
        assert content(port, f"?jobs={2 * DEFAULT_LIMIT}").count('<li id="li-') == 2 * DEFAULT_LIMIT


def test_what_runs_is_listed_first(tmp_path: Path) -> None:
    from tuneoff.server.page_view import PageRequest, build_page_view
    from tuneoff.server.settings import ServerConfig

    store = Store(tmp_path)
    add_job(store, "ftjob-old", "running", step=5, total_steps=10, estimated_finish=2**40)
    for number in range(DEFAULT_LIMIT):
        add_job(store, f"ftjob-{number}", "queued")
    settings = ServerConfig(tmp_path, {"random": "random"})
    view = build_page_view(
        store, settings, PageRequest(DEFAULT_LIMIT, DEFAULT_LIMIT, DEFAULT_LIMIT)
    )
    assert [job["id"] for job in view["jobs"][:2]] == ["ftjob-old", f"ftjob-{DEFAULT_LIMIT - 1}"]
    assert [job["opened"] for job in view["jobs"][:2]] == [True, False]
    assert view["jobs"][0]["progress"].startswith("step 5 of 10, about ")
    assert view["told"] == [f"{DEFAULT_LIMIT} queued", "1 running"]
    wanted = PageRequest(
        DEFAULT_LIMIT, DEFAULT_LIMIT, DEFAULT_LIMIT, opened=("ftjob-3",), shut=("ftjob-old",)
    )
    opened = [
        job["id"] for job in build_page_view(store, settings, wanted)["jobs"] if job["opened"]
    ]
    assert opened == ["ftjob-3"]


def test_models_are_what_can_be_asked(tmp_path: Path) -> None:
    from tuneoff.server.page_view import PageRequest, build_page_view
    from tuneoff.server.settings import ServerConfig

    store = Store(tmp_path)
    with store.transaction() as connection:
        connection.executemany(
            "INSERT INTO models (id, created_at, base, job_id) VALUES (?, ?, ?, 'ftjob-1')",
            [("ft:random:1", 2, "random"), ("ft:gone:1", 3, "gone")],
        )
        connection.execute(
            "INSERT INTO checkpoints (id, created_at, model, base, job_id, step, metrics) "
            "VALUES ('ftckpt-1', 1, 'ft:random:1:step-4', 'random', 'ftjob-1', 4, '{}')"
        )
    settings = ServerConfig(tmp_path, {"random": "random"})
    view = build_page_view(store, settings, PageRequest(DEFAULT_LIMIT, DEFAULT_LIMIT, 2))
    assert [(model["id"], model["usable"]) for model in view["models"]] == [
        ("ft:gone:1", False), ("ft:random:1", True),
    ]  # fmt: skip
    assert view["more_models"]
    assert view["to_try"] == [
        ("Tuned", ["ft:random:1"]), ("Bases", ["random"]), ("Checkpoints", ["ft:random:1:step-4"]),
    ]  # fmt: skip


def test_a_curve() -> None:
    rows = [LossRow(0, 0, None, 3.0), LossRow(10, 80, 2.0, 2.5), LossRow(20, 160, 1.0, None)]
    curve = build_loss_curve(rows, 40, validated=True)
    assert curve is not None
    training, validation = curve.lines
    assert [dot.x for dot in training.dots] == [25.0, 50.0]
    assert [dot.x for dot in validation.dots] == [0.0, 25.0]
    heights = [dot.y for dot in (*validation.dots, *training.dots)]
    assert heights == sorted(heights)  # downwards is less
    assert all(0 < y < HEIGHT for y in heights)
    assert training.dots[0].says == "step 10: training loss 2"
    assert [tick.label for tick in curve.x] == ["0", "10", "20", "30", "40"]
    assert float(curve.y[0].label) <= 1.0
    assert float(curve.y[-1].label) >= 3.0
    assert curve.words.endswith("training loss 1; validation loss 2.5.")
    alone = build_loss_curve(rows, 40, validated=False)
    assert alone is not None
    assert [line.name for line in alone.lines] == ["training"]


@pytest.mark.parametrize(
    "losses",
    [
        (1.0,), (0.0,), (0.0, 0.0), (5.0, 5.0), (-1.0, 1.0), (1e-9, 1e3), (0.05, 2.0), (1e300,),
        (1e-300, 1.0), (float("nan"), 1.0), (float("inf"), 1.0, 2.0),
    ],
)  # fmt: skip
def test_curves_of_odd_losses(losses: tuple[float, ...]) -> None:
    rows = [LossRow(step, step, loss) for step, loss in enumerate(losses)]
    curve = build_loss_curve(rows, None, validated=False)
    assert curve is not None
    assert len(curve.y) >= 2
    assert all(0 <= dot.x <= 100 and 0 < dot.y < HEIGHT for dot in curve.lines[0].dots)
    places = [tick.at for tick in curve.y]
    assert places == sorted(places, reverse=True)


def test_no_curve_and_long_ones() -> None:
    assert build_loss_curve([], 10, True) is None
    assert build_loss_curve([LossRow(0, 0, None, 1.0)], 10, validated=False) is None
    assert build_loss_curve([LossRow(0, 0, float("nan"))], 10, True) is None
    rows = [LossRow(step, step, 1 + 1 / (step + 1)) for step in range(100_000)]
    curve = build_loss_curve(rows, None, True)
    assert curve is not None
    dots = curve.lines[0].dots
    assert MAX_POINTS / 2 < len(dots) <= MAX_POINTS + 1
    assert dots[-1].says.startswith("step 99999:")


def test_words() -> None:
    spans = (-5, 0, 59, 60, 3600, 86_399, 86_400, 200_000)
    assert [format_age(span) for span in spans] == [
        "just now", "just now", "just now", "1 min ago", "1 h ago", "23 h ago", "1 day ago",
        "2 days ago",
    ]  # fmt: skip
    sizes = (0, 812, 1000, 1024, 3500, 12 * 2**20, 2**30)
    assert [format_file_size(size) for size in sizes] == [
        "0 B", "812 B", "1000 B", "1 KiB", "3.42 KiB", "12 MiB", "1 GiB",
    ]  # fmt: skip
