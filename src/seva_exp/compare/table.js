"use strict";
// Sorting, filtering and choosing columns of the table of runs. What passes the filters is told to
// the plots by the event "runs" with the numbers of the visible models.
(() => {
  const table = document.getElementById("runs");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  const find = document.getElementById("find");
  const fields = [...document.querySelectorAll("#controls select[data-place]")];
  const order = document.getElementById("order");
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

  const sortValue = (row, place) => row.cells[place].dataset.sort ?? "";

  // Numbers before words, what is missing last, whichever way it goes.
  function compare(a, b, way) {
    if (a === "" || b === "") return (a === "") - (b === "");
    const x = Number(a), y = Number(b);
    if (!Number.isNaN(x) && !Number.isNaN(y)) return way * (x - y);
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
    return way * a.localeCompare(b, undefined, { numeric: true });
  }

  function sort(place, way) {
    heads.forEach((head, i) => {
      head.setAttribute("aria-sort", i !== place ? "none" : way > 0 ? "ascending" : "descending");
    });
    const sorted = [...rows].sort(
      (a, b) => compare(sortValue(a, place), sortValue(b, place), way) || rows.indexOf(a) - rows.indexOf(b)
    );
    body.append(...sorted);
    order.value = `${place} ${way}`;
  }

  heads.forEach((head, place) => {
    head.querySelector("button").addEventListener("click", () => {
      sort(place, head.getAttribute("aria-sort") === "ascending" ? -1 : 1);
    });
    const label = head.textContent.trim().replace(/\s+/g, " ");
    for (const [way, arrow] of [[1, "rising"], [-1, "falling"]]) {
      order.add(new Option(`${label}, ${arrow}`, `${place} ${way}`));
    }
  });
  order.prepend(new Option("as they were given", ""));
  order.value = "";
  order.addEventListener("change", () => {
    if (order.value) return sort(...order.value.split(" ").map(Number));
    heads.forEach((head) => head.setAttribute("aria-sort", "none"));
    body.append(...rows);
  });

  // A base stays in sight for as long as only fields are chosen: it is what runs are measured by.
  function passes(row) {
    const wanted = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!wanted.every((word) => texts.get(row).includes(word))) return false;
    return fields.every((field) => {
      const value = row.cells[1 + Number(field.dataset.place)].dataset.sort;
      return !field.value || value === field.value || (row.className === "base" && !value);
    });
  }

  function filter() {
    const visible = rows.filter((row) => {
      row.hidden = !passes(row);
      return !row.hidden;
    });
    const all = visible.length === rows.length;
    document.getElementById("count").textContent = all ? "" : `${visible.length} of ${rows.length} rows`;
    const models = new Set(visible.map((row) => Number(row.dataset.model)));
    document.dispatchEvent(new CustomEvent("runs", { detail: models }));
  }

  // A chooser's boxes show and hide what carries their number: columns, and a field's filter. A
  // filter that is set stays in sight.
  function choose(chooser, boxes) {
    const of = chooser.dataset.of;
    const visible = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    for (const one of document.querySelectorAll(`#controls [data-${of}], #runs [data-${of}]`)) {
      const filters = one.tagName === "LABEL" && one.querySelector("select").value;
      one.hidden = !visible.has(one.dataset[of]) && !filters;
    }
    chooser.querySelector(".chosen").textContent = visible.size;
    for (const option of order.options) {
      const head = heads[Number(option.value.split(" ")[0])];
      option.hidden = Boolean(option.value && head.hidden);
    }
  }

  document.querySelectorAll(".chooser").forEach((chooser) => {
    const boxes = [...chooser.querySelectorAll("input[type=checkbox]")];
    const search = chooser.querySelector("input[type=search]");
    const label = (box) => box.closest("label").textContent.toLowerCase();
    search.addEventListener("input", () => {
      const word = search.value.toLowerCase();
      boxes.forEach((box) => (box.closest("li").hidden = !label(box).includes(word)));
    });
    const setAll = (on) => () => {
      boxes.filter((box) => !box.closest("li").hidden).forEach((box) => (box.checked = on));
      choose(chooser, boxes);
    };
    chooser.querySelector(".all").addEventListener("click", setAll(true));
    chooser.querySelector(".none").addEventListener("click", setAll(false));
    boxes.forEach((box) => box.addEventListener("change", () => choose(chooser, boxes)));
    choose(chooser, boxes);
  });
  find.addEventListener("input", filter);
  fields.forEach((field) => field.addEventListener("change", filter));
  document.querySelectorAll("form.controls").forEach((form) =>
    form.addEventListener("submit", (event) => event.preventDefault())
  );
})();
