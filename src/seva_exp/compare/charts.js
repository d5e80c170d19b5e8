// Fills the Vega-Lite specs with the rows that are in sight and draws them.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const element = (id) => document.getElementById(id);
  let visible = new Set(data.models.keys());

  // The fields of a model that are not among ``apart``, as text: what tells its line from others.
  const others = (model, ...apart) =>
    Object.entries(model.fields)
      .filter(([name, value]) => !apart.includes(name) && value !== null)
      .map(([name, value]) => `${name}=${value}`)
      .join(", ") || "all runs";

  // What models that share a thing have in common, as a model.
  const agreed = (models) => {
    const [first, ...rest] = models.map((model) => Object.entries(data.models[model].fields));
    const has = (fields, [name, value]) => fields.some((one) => one[0] === name && one[1] === value);
    return { fields: Object.fromEntries(first.filter((one) => rest.every((r) => has(r, one)))) };
  };

  // A label in lines of at most ``most`` characters, broken between its fields.
  function wrapped(label, most) {
    const lines = [];
    for (const whole of label.split(", ")) {
      const part = whole.length > most ? `${whole.slice(0, most - 1)}…` : whole;
      const last = lines.at(-1);
      if (last && last.length + part.length + 2 <= most) lines.push(`${lines.pop()}, ${part}`);
      else lines.push(part);
    }
    return lines.join("\n");
  }

  function scoresOf(column) {
    return data.scores
      .filter(([model, of]) => of === column && visible.has(model))
      .map(([model, , value, low, high, change, verdict]) => {
        const { label, base, fields } = data.models[model];
        return { model, label, base, fields, value, low, high, change, verdict };
      });
  }

  // Series in colours of their own with a legend; too many of them: all alike.
  function coloured(encoding, lines, width) {
    const known = [...new Set(lines)];
    if (known.length > data.most_lines) {
      encoding.color = { value: "var(--accent)" };
      encoding.opacity = { value: 0.45 };
      encoding.detail = [{ field: "line" }].concat(encoding.detail ?? []);
    } else if (known.length < 2) {
      encoding.color = { value: "var(--accent)" };
    } else {
      const longest = Math.max(...known.map((line) => line.length));
      const columns = Math.max(1, Math.floor(width / (longest * 7 + 40)));
      encoding.color.legend = { columns };
    }
    return known.length;
  }

  async function draw(name, values, description, change = () => {}) {
    const place = element(`chart-${name}`);
    place.closest("figure").classList.toggle("empty", !values.length);
    place.dataset.drawn = values.length;
    if (!values.length) return place.replaceChildren();
    const spec = structuredClone(data.specs[name]);
    spec.data = { values };
    spec.description = description;
    change(spec, place.clientWidth);
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const axisX = { tickCount: Math.max(2, Math.floor(place.clientWidth / 100)) };
    const config = { ...data.config, axisX };
    const options = { renderer: "svg", actions: false, ast: true, config };
    await vegaEmbed(place, spec, { ...options, tooltip: { theme: dark ? "dark" : "light" } });
  }

  function drawScores() {
    const column = Number(element("metric").value);
    const title = data.columns[column].label;
    const rows = scoresOf(column);
    const most = element("chart-scores").clientWidth < 600 ? 24 : 48;
    const named = rows.map((row) => ({ ...row, lines: `${row.model}\n${wrapped(row.label, most)}` }));
    draw("scores", named, `${title} of every run with its 95 % interval`, (spec) => {
      const lines = Math.max(1, ...named.map((row) => row.lines.split("\n").length - 1));
      spec.height = named.length * (12 + 15 * lines);
    });
    if (data.axes.length) drawAgainst(rows, title);
    if (data.heat.length) drawHeat(rows, title);
  }

  function drawAgainst(rows, title) {
    const axis = element("axis").value;
    const bases = rows.filter((row) => row.base);
    const without = (spec, mark) => (spec.layer = spec.layer.filter((one) => one.mark.type !== mark));
    const values = rows
      .filter((row) => !row.base && row.fields[axis] !== null)
      .map((row) => ({
        ...row,
        x: row.fields[axis],
        line: others(row, axis, "seed"),
        base: bases[0]?.value,
      }));
    draw("against", values, `${title} against ${axis}`, (spec, width) => {
      const xs = values.map((row) => row.x);
      const wide = Math.min(...xs) > 0 && Math.max(...xs) / Math.min(...xs) > 30;
      spec.encoding.x.title = axis;
      spec.encoding.x.scale.type = wide ? "log" : "linear";
      const count = coloured(spec.encoding, values.map((row) => row.line), width);
      const places = new Set(values.map((row) => `${row.x} ${row.line}`));
      if (places.size === values.length || count > data.most_lines) without(spec, "errorbar");
      if (bases.length !== 1) without(spec, "rule");
    });
  }

  function drawHeat(rows, title) {
    const [x, y] = data.heat;
    const values = rows
      .filter((row) => !row.base)
      .map((row) => ({ value: row.value, x: row.fields[x] ?? "–", y: row.fields[y] ?? "–" }));
    draw("heat", values, `${title} by ${x} and ${y}`, (spec) => {
      spec.encoding.x.title = x;
      spec.encoding.y.title = y;
      spec.height = 44 * new Set(values.map((row) => row.y)).size;
    });
  }

  function drawTraining() {
    const option = Number(element("curve").value);
    const curves = data.training.series
      .filter((one) => one.option === option)
      .map((one) => ({ ...one, models: one.models.filter((model) => visible.has(model)) }))
      .filter((one) => one.models.length);
    const values = curves.flatMap(({ models, points }, run) => {
      const shared = agreed(models);
      const label = others(shared) + (models.length > 1 ? ` (${models.length} runs)` : "");
      const line = others(shared, "seed");
      return points.map(([step, value]) => ({ run, label, line, step, value }));
    });
    draw("training", values, `${data.training.options[option]} over training steps`, (spec, width) => {
      coloured(spec.encoding, values.map((row) => row.line), width);
      spec.mark.point = curves.some((one) => one.points.length === 1); // no line goes through one
    });
  }

  function drawAll() {
    if (data.columns.length) drawScores();
    if (data.training.options.length) drawTraining();
  }

  function fill(select, options) {
    options.forEach(([text, value, group]) => {
      let parent = select;
      if (group) {
        parent = [...select.children].find((one) => one.label === group);
        if (!parent) {
          parent = document.createElement("optgroup");
          parent.label = group;
          select.append(parent);
        }
      }
      parent.append(new Option(text, value));
    });
  }

  if (data.columns.length) {
    fill(element("metric"), data.columns.map((column, i) => [column.label, i, column.group]));
    element("metric").value = data.first;
    element("metric").addEventListener("change", drawScores);
    fill(element("axis"), data.axes.map((name) => [name, name]));
    element("axis").addEventListener("change", drawScores);
    element("figure-against").hidden = !data.axes.length;
    element("figure-heat").hidden = !data.heat.length;
  }
  if (data.training.options.length) {
    fill(element("curve"), data.training.options.map((name, i) => [name, i]));
    element("curve").addEventListener("change", drawTraining);
    element("section-training").hidden = false;
  }
  let waiting;
  document.addEventListener("runs", (event) => {
    visible = event.detail;
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 120);
  });
  drawAll();
})();
