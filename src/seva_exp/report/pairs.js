"use strict";
// Filter, search and marks of pairs. Rows are drawn some at a time.
(() => {
  const { rows, pictures, key } = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const [list, find, view, kind, marked, count, more] =
    ["list", "find", "view", "kind", "marked", "count", "more"].map(at);
  const STEP = 40;
  let shown = [], drawn = 0, current = -1;

  // A pair goes by sample and view; a view's several answers to a sample share a mark, as the file does.
  const name = (row) => JSON.stringify([row.id, row.view]);
  let marks = new Map();
  try { marks = new Map(JSON.parse(localStorage.getItem(key)) ?? []); } catch { /* a private window */ }
  const keepMarks = () => {
    try { localStorage.setItem(key, JSON.stringify([...marks])); } catch { /* they last as long as the page */ }
  };

  const words = (text) => text.match(/[\p{L}\p{N}]+|[^\s]/gu) ?? [];

  // Longest common subsequence; of very long answers the common ends alone.
  function different(a, b) {
    const x = words(a), y = words(b), same = [new Set(), new Set()];
    let start = 0, end = 0;
    while (start < x.length && start < y.length && x[start] === y[start]) { same[0].add(start); same[1].add(start); start++; }
    while (end < x.length - start && end < y.length - start && x.at(-1 - end) === y.at(-1 - end)) {
      same[0].add(x.length - 1 - end); same[1].add(y.length - 1 - end); end++;
    }
    const n = x.length - start - end, m = y.length - start - end;
    if (n * m <= 250000) {
      const best = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
      for (let i = n - 1; i >= 0; i--) for (let j = m - 1; j >= 0; j--) {
        best[i][j] = x[start + i] === y[start + j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
      }
      for (let i = 0, j = 0; i < n && j < m;) {
        if (x[start + i] === y[start + j]) { same[0].add(start + i++); same[1].add(start + j++); }
        else if (best[i + 1][j] >= best[i][j + 1]) i++; else j++;
      }
    }
    return same;
  }

  function fill(node, text, same) {
    let place = 0, from = 0;
    for (const found of text.matchAll(/[\p{L}\p{N}]+|[^\s]/gu)) {
      node.append(text.slice(from, found.index));
      if (same.has(place++)) node.append(found[0]);
      else node.append(Object.assign(document.createElement("mark"), { textContent: found[0] }));
      from = found.index + found[0].length;
    }
    node.append(text.slice(from));
  }

  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  function card(row, place) {
    const node = make("article", "pair-row");
    node.tabIndex = 0;
    node.dataset.place = place;
    const shot = pictures[row.picture];
    if (shot) {
      const image = make("img", shot.small ? "crisp" : "");
      Object.assign(image, { src: shot.uri, width: shot.width, height: shot.height, alt: `picture of ${row.id}`, loading: "lazy" });
      node.append(image);
    } else node.append(make("div", "no-picture", "no picture"));
    const text = make("div");
    text.append(make("p", "where", `${row.id} · ${row.view}`), make("p", "question", row.question));
    const same = different(row.chosen, row.rejected);
    for (const [side, title, said] of [[0, "chosen", row.chosen], [1, "rejected", row.rejected]]) {
      const one = make("p", side ? "text no" : "text");
      one.append(make("b", "", title));
      fill(one, said || "(empty)", same[side]);
      text.append(one);
    }
    const buttons = make("div", "mark");
    for (const word of ["keep", "drop"]) {
      const button = make("button", word, word);
      button.type = "button";
      button.addEventListener("click", () => mark(row, marks.get(name(row)) === word ? "" : word));
      buttons.append(button);
    }
    node.append(text, buttons);
    node.addEventListener("focusin", () => { current = place; });
    look(node, row);
    return node;
  }

  function look(node, row) {
    const word = marks.get(name(row)) ?? "";
    node.classList.toggle("keep", word === "keep");
    node.classList.toggle("drop", word === "drop");
    for (const button of node.querySelectorAll(".mark button")) button.setAttribute("aria-pressed", String(button.className === word));
  }

  function mark(row, word) {
    if (word) marks.set(name(row), word); else marks.delete(name(row));
    keepMarks();
    for (const node of list.children) look(node, shown[node.dataset.place]);
    tell();
  }

  const share = (row) => {
    const a = new Set(words(row.chosen.toLowerCase())), b = new Set(words(row.rejected.toLowerCase()));
    const both = [...a].filter((word) => b.has(word)).length;
    return both / Math.max(1, a.size, b.size);
  };
  const KINDS = {
    "": () => true,
    few: (row) => share(row) >= 0.5,
    many: (row) => share(row) < 0.5,
    longer: (row) => words(row.rejected).length > words(row.chosen).length,
    shorter: (row) => words(row.rejected).length < words(row.chosen).length,
  };

  function filter() {
    const wanted = find.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    shown = rows.filter((row) => {
      if (view.value && row.view !== view.value) return false;
      const word = marks.get(name(row)) ?? "none";
      if (marked.value && word !== marked.value) return false;
      if (!KINDS[kind.value](row)) return false;
      const text = `${row.id} ${row.question} ${row.chosen} ${row.rejected}`.toLowerCase();
      return wanted.every((one) => text.includes(one));
    });
    list.replaceChildren();
    drawn = 0;
    current = -1;
    draw();
    tell();
  }

  function draw() {
    const next = shown.slice(drawn, drawn + STEP).map((row, i) => card(row, drawn + i));
    list.append(...next);
    drawn += next.length;
    more.hidden = drawn >= shown.length;
  }

  function tell() {
    const words = [...marks.values()];
    const of = (word) => words.filter((one) => one === word).length;
    count.textContent = `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rejected answers · marked: ${of("keep")} keep, ${of("drop")} drop`;
  }

  function go(place) {
    if (place < 0 || place >= shown.length) return;
    while (place >= drawn) draw();
    const node = list.children[place];
    node.focus({ preventScroll: true });
    node.scrollIntoView({ block: "nearest" });
  }

  at("download").addEventListener("click", () => {
    const lines = [...marks].map(([one, word]) => {
      const [id, of] = JSON.parse(one);
      return JSON.stringify({ sample_id: id, view: of, mark: word }) + "\n";
    });
    const link = make("a");
    link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
    link.download = "marks.jsonl";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  for (const one of [view, kind, marked]) one.addEventListener("change", filter);
  find.addEventListener("input", filter);
  more.addEventListener("click", draw);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const word = { y: "keep", n: "drop", u: "" }[event.key];
    if (event.key === "j") go(current + 1);
    else if (event.key === "k") go(current - 1);
    else if (event.key === "/") { event.preventDefault(); find.focus(); }
    else if (word !== undefined && shown[current]) mark(shown[current], word);
  });
  filter();
})();
