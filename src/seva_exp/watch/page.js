"use strict";
const EVERY = 2000, $ = (id) => document.getElementById(id);
let chosen = decodeURIComponent(location.hash.slice(1)), runs = [], drawn = "";

function make(tag, options, ...inside) {
  const {kind, ...attributes} = options || {};
  const node = document.createElement(tag);
  if (kind) node.className = kind;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...inside.filter((one) => one !== null && one !== undefined && one !== ""));
  return node;
}

function duration(seconds) {
  if (seconds < 90) return Math.round(seconds) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  return (seconds / 3600).toFixed(1) + " h";
}

function when(seconds) {
  return new Date(seconds * 1000).toLocaleString([], {month: "short", day: "numeric", hour: "2-digit", minute: "2-digit"});
}

function bar(run) {
  if (run.state !== "running" || !run.stage) return [];
  const parts = [run.part || run.stage];
  const known = run.total > 0;
  if (known) parts.push(run.done.toLocaleString() + " of " + run.total.toLocaleString() + " " + run.unit + (run.unit.endsWith("s") || !run.unit ? "" : "s"));
  const seconds = run.stage_began ? Date.now() / 1000 - run.stage_began : 0;
  if (known && run.done && seconds > 5) parts.push(duration(seconds * (run.total - run.done) / run.done) + " left");
  const progress = make("progress", {"aria-label": run.stage});
  if (known) { progress.max = run.total; progress.value = run.done; }
  return [progress, make("span", {kind: "small"}, parts.join(" · "))];
}

function listed(run) {
  const facts = [when(run.began), run.method, run.views.join("+"), run.model].filter(Boolean).join(" · ");
  const scores = run.scores.map((one) => one.text).join(", ");
  const button = make("button", {type: "button", "data-run": run.id, "aria-current": String(run.id === chosen)},
    make("span", {kind: "state " + run.state}, run.state), make("b", {}, run.name),
    make("span", {kind: "small"}, facts), scores && make("span", {kind: "small"}, scores), ...bar(run));
  button.addEventListener("click", () => { chosen = run.id; location.hash = encodeURIComponent(chosen); drawn = ""; look(); });
  return make("li", {}, button);
}

function curve(one) {
  const NS = "http://www.w3.org/2000/svg", W = 320, H = 130;
  const svg = document.createElementNS(NS, "svg");
  svg.setAttribute("viewBox", `0 0 ${W} ${H}`); svg.setAttribute("class", "curve"); svg.setAttribute("role", "img");
  svg.dataset.points = one.points.length;
  svg.setAttribute("aria-label", `${one.name} of ${one.stage}`);
  const xs = one.points.map((p) => p[0]), ys = one.points.map((p) => p[1]);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const X = (x) => 4 + (W - 12) * (x1 > x0 ? (x - x0) / (x1 - x0) : 1);
  const Y = (y) => H - 22 - (H - 40) * (y1 > y0 ? (y - y0) / (y1 - y0) : .5);
  const add = (tag, attributes, text) => {
    const node = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text) node.textContent = text;
    svg.append(node);
  };
  add("line", {x1: 4, x2: W - 8, y1: H - 18, y2: H - 18, class: "grid-line"});
  add("polyline", {points: one.points.map((p) => X(p[0]).toFixed(1) + "," + Y(p[1]).toFixed(1)).join(" "), class: "line"});
  const last = one.points[one.points.length - 1];
  add("circle", {cx: X(last[0]), cy: Y(last[1]), r: 3, class: "end"});
  add("text", {x: 4, y: 11, class: "chart-text"}, "max " + y1.toPrecision(3));
  add("text", {x: 4, y: H - 4, class: "chart-text"}, "min " + y0.toPrecision(3));
  add("text", {x: W - 8, y: H - 4, class: "chart-text", "text-anchor": "end"}, "step " + last[0] + ": " + last[1].toPrecision(4));
  return make("figure", {kind: "card"}, make("figcaption", {}, one.stage + " · " + one.name), svg);
}

function pair(one) {
  const answer = (kind, title, text) => make("div", {kind: "answer " + kind}, make("b", {}, title), text || "(empty)");
  return make("article", {kind: "card"}, make("p", {kind: "question"}, one.question), make("div", {kind: "answers"},
    answer("", "chosen", one.chosen), ...one.rejected.map((r) => answer("rejected", "rejected · " + r.view, r.text))));
}

function section(title, ...inside) {
  return make("section", {}, make("h2", {}, title), ...inside);
}

const MARKS = {made: "✓", reused: "↺", running: "●", stopped: "✕", waits: "○"};

function detail(run) {
  const took = (run.ended || (run.state === "running" ? run.now : 0)) - run.began;
  const facts = [["State", run.state], ["Began", when(run.began)], ["Took", took > 0 ? duration(took) : ""], ["Seed", String(run.seed)],
    ["Method", run.method], ["Views", run.views.join(", ")], ["Model", run.model], ["Pairs", run.pairs === null ? "" : String(run.pairs)],
    ["Tags", run.tags.join(", ")]].filter((row) => row[1]);
  const parts = [section(run.name, run.message && make("p", {kind: "finding"}, run.message),
    make("dl", {kind: "facts"}, ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))),
    ...bar(run), run.files.length ? make("p", {kind: "links"}, ...run.files.map((name) =>
      make("a", {href: "file/" + encodeURIComponent(run.id) + "/" + name, target: "_blank", rel: "noopener"}, name))) : null)];
  if (run.scores.length) parts.push(section("Scores", make("p", {}, run.scores.map((one) => one.benchmark + " " + one.text).join(", ")),
    make("p", {kind: "note"}, "Changes from the base; * is significant (p < 0.05).")));
  parts.push(section("Stages", make("ul", {kind: "stages card"}, ...run.stages.map((one) => make("li", {kind: one.how},
    make("span", {kind: "mark", "aria-hidden": "true"}, MARKS[one.how] || "–"), make("span", {}, one.name),
    make("span", {kind: "how"}, one.how + (one.seconds === null ? "" : " · " + duration(one.seconds))))))));
  if (run.curves.length) parts.push(section("Training", make("div", {kind: "grid"}, ...run.curves.map(curve))));
  if (run.pairs_shown.length) parts.push(section("First pairs", make("div", {kind: "pairs"}, ...run.pairs_shown.map(pair))));
  if (run.log.length) parts.push(section("Log", make("pre", {kind: "log", tabindex: "0"}, run.log.join("\n"))));
  return parts;
}

async function read(name) {
  const reply = await fetch(name, {cache: "no-store"});
  if (reply.status === 404) return null;
  if (!reply.ok) throw new Error(String(reply.status));
  return reply.json();
}

async function look() {
  try {
    runs = (await read("runs.json")) || [];
    if (!runs.some((run) => run.id === chosen)) chosen = ((runs.find((run) => run.state === "running") || runs[0]) || {}).id || "";
    const focused = document.activeElement && document.activeElement.dataset.run, top = $("list").scrollTop;
    $("list").replaceChildren(...runs.map(listed));
    $("list").scrollTop = top;
    if (focused) [...$("list").querySelectorAll("button")].filter((one) => one.dataset.run === focused).forEach((one) => one.focus());
    const working = runs.filter((run) => run.state === "running").length;
    $("count").textContent = runs.length + (runs.length === 1 ? " run, " : " runs, ") + working + " at work";
    document.title = (working ? "● " : "") + "runs · seva_exp";
    if (chosen) {
      const run = await read("run.json?run=" + encodeURIComponent(chosen));
      const text = JSON.stringify({...run, now: run && run.state === "running" ? run.now : 0});
      if (run && text !== drawn) {
        drawn = text;
        const log = document.querySelector(".log"), up = log && log.scrollTop + log.clientHeight < log.scrollHeight - 5 ? log.scrollTop : null;
        $("detail").replaceChildren(...detail(run));
        const now = document.querySelector(".log");
        if (now) now.scrollTop = up === null ? now.scrollHeight : up;
      }
    } else $("detail").replaceChildren(make("p", {kind: "muted"}, "There is no run yet."));
    $("lost").textContent = "";
  } catch (error) {
    $("lost").textContent = "The server does not answer: what is shown may be old.";
  }
  document.body.dataset.looked = "yes";
}

async function follow() {
  if (!document.hidden) await look();
  setTimeout(follow, EVERY);
}
follow();
