// The page's own program: interactive charts, tables that sort, examples that can be filtered.
// Nothing is loaded, and text is only ever set as text. Without it everything can be read.
"use strict";

// Puts the interactive chart in place of each static one, when it comes near the window.
function enliven(figure) {
  const spec = JSON.parse(figure.querySelector("script").textContent);
  const place = document.createElement("div");
  const still = figure.querySelector(".still");
  still.after(place);
  vegaEmbed(place, spec, {
    mode: "vega-lite",
    renderer: "svg",
    actions: false,
    ast: true, // expressions are interpreted, so the page needs no eval
    tooltip: { disableDefaultStyle: true },
  }).then(
    function () { still.remove(); figure.dataset.drawn = "live"; },
    function () { place.remove(); figure.dataset.drawn = "still"; }
  );
}

const near = new IntersectionObserver(function (entries) {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    near.unobserve(entry.target);
    enliven(entry.target);
  }
}, { rootMargin: "400px" });
document.querySelectorAll(".chart").forEach(function (figure) { near.observe(figure); });

// What scrolls inside itself can be scrolled by keyboard, too.
function reach(each) {
  const scrolls = each.scrollWidth > each.clientWidth || each.scrollHeight > each.clientHeight;
  if (scrolls) each.tabIndex = 0; else each.removeAttribute("tabindex");
}

const sizes = new ResizeObserver(function (entries) {
  for (const entry of entries) reach(entry.target);
});
document.querySelectorAll(".box, pre").forEach(function (each) { sizes.observe(each); });

// A table whose heads are buttons: first the most, or A to Z; again turns it around.
function valueOf(row, column) {
  const cell = row.cells[column];
  if (!cell || cell.colSpan > 1) return null;
  const text = "sort" in cell.dataset ? cell.dataset.sort : cell.textContent.trim();
  if (text === "") return null;
  return "sort" in cell.dataset && !isNaN(Number(text)) ? Number(text) : text;
}

function sortBy(table, head, column) {
  const rows = Array.from(table.tBodies[0].rows);
  const values = new Map(rows.map(function (row) { return [row, valueOf(row, column)]; }));
  const known = rows.filter(function (row) { return values.get(row) !== null; });
  const before = head.getAttribute("aria-sort");
  const words = known.some(function (row) { return typeof values.get(row) === "string"; });
  const up = before ? before === "descending" : words;
  known.sort(function (a, b) {
    const x = values.get(a), y = values.get(b);
    const order = words ? String(x).localeCompare(String(y), "en") : x - y;
    return up ? order : -order;
  });
  // What has no value stays last, whichever way.
  const unknown = rows.filter(function (row) { return values.get(row) === null; });
  table.tBodies[0].append(...known, ...unknown);
  table.querySelectorAll("[aria-sort]").forEach(function (th) { th.removeAttribute("aria-sort"); });
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
}

document.querySelectorAll("table.sortable").forEach(function (table) {
  Array.from(table.tHead.rows[0].cells).forEach(function (head, column) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", function () { sortBy(table, head, column); });
    head.append(button);
  });
});

// The browser of examples: ten at a time of those that every filter lets through.
const STEP = 10;

function browse(section) {
  const bar = section.querySelector(".filter");
  const count = section.querySelector("#examples-count");
  const more = section.querySelector("#examples-more");
  const field = function (id) { return section.querySelector("#filter-" + id); };
  const chosen = function (id) { return field(id) ? field(id).value : ""; };
  const cards = Array.from(section.querySelectorAll(".example"), function (element) {
    return {
      element: element,
      answers: JSON.parse(element.dataset.answers), // [1 if right, class of error] by contender
      groups: JSON.parse(element.dataset.groups),
      text: null, // in small letters, made when it is searched for the first time
    };
  });
  let shown = STEP;

  function passes(card) {
    const right = chosen("right"), wrong = chosen("wrong"), name = chosen("class");
    if (right !== "" && !card.answers[right][0]) return false;
    if (wrong !== "" && card.answers[wrong][0]) return false;
    const asked = wrong === "" ? card.answers : [card.answers[wrong]];
    if (name && !asked.some(function (answer) { return answer[1] === name; })) return false;
    for (const select of bar.querySelectorAll("[data-group]")) {
      if (select.value && card.groups[select.dataset.group] !== select.value) return false;
    }
    const text = chosen("text").trim().toLowerCase();
    if (!text) return true;
    if (card.text === null) card.text = card.element.textContent.toLowerCase();
    return card.text.includes(text);
  }

  function update() {
    const found = cards.filter(passes);
    const visible = new Set(found.slice(0, shown));
    for (const card of cards) card.element.hidden = !visible.has(card);
    count.textContent = found.length + (found.length === 1 ? " example" : " examples") +
      (found.length > visible.size ? ", the first " + visible.size + " shown" : "");
    more.hidden = found.length <= visible.size;
  }

  function again() { shown = STEP; update(); }

  bar.addEventListener("input", again);
  field("reset").addEventListener("click", function () {
    bar.querySelectorAll("select, input").forEach(function (each) { each.value = ""; });
    again();
  });
  more.addEventListener("click", function () { shown += STEP; update(); });
  bar.hidden = count.hidden = false;
  update();
}

const examples = document.getElementById("examples");
if (examples) browse(examples);
