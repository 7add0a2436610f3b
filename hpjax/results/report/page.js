"use strict";
// All texts that users chose are set as text, never as HTML.
const $ = (id) => document.getElementById(id);
const element = (tag, text, className) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
};
// Plotly reads a few tags in labels.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const number = (value) => value === null || value === undefined ? "–"
  : Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
const BLUE = "#3a93cf", ORANGE = "#E69F00", GREY = "#9A9A9A";
const LONG = 12;
let content = JSON.parse($("content").textContent);
let sort = null, rows = LONG, picked = null;

const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
const layout = (more) => {
  const ink = dark() ? "#e8eaee" : "#1c1f24", line = dark() ? "#38404a" : "#e3e7ec";
  const axis = { gridcolor: line, zeroline: false, automargin: true };
  const { xaxis, yaxis, ...rest } = more;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12 },
    margin: { l: 60, r: 20, t: 20, b: 50 }, height: 380, uirevision: "kept", hoverlabel: { namelength: -1 }, showlegend: false,
    xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
  };
};
const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["sendDataToCloud", "lasso2d", "select2d"] };
const draw = (id, traces, more) => Plotly.react($(id), traces, layout(more), config);
const show = (id, there) => { $(id).hidden = !there; return there; };

const values = () => content.metrics[content.metric];
const isBest = (row) => content.best && row === 0;
const varied = () => content.hyperparameters.filter((h) => new Set(h.values.filter((v) => v !== null)).size > 1);
const text = (h, value) => value === null ? "–" : h.options.length ? h.options[value] : number(value);
const placed = (h, value) => value !== null && h.scale === "reverse log" ? 1 - value : value;
const decades = (h) => {
  const found = h.values.filter((v) => v !== null).map((v) => Math.log10(placed(h, v)));
  return Math.max(...found) - Math.min(...found);
};
const axisOf = (h) => h.options.length
  ? { title: { text: plain(h.name) }, tickvals: h.options.map((_, i) => i), ticktext: h.options.map(plain) }
  : { title: { text: plain(h.scale === "reverse log" ? `1 − ${h.name}` : h.name) }, exponentformat: "power",
      ...(h.scale === "log" || h.scale === "reverse log" ? { type: "log", ...(decades(h) > 1.5 ? { dtick: 1 } : { nticks: 5 }) } : {}),
      ...(h.scale === "reverse log" ? { autorange: "reversed" } : {}) };
const positive = (list) => { const found = list.filter((v) => v !== null); return found.length > 0 && found.every((v) => v > 0); };
// A logarithmic axis where values are of several orders, and without the few that are far off, so that the best are not
// pressed into one line. A double click shows all.
const objectiveAxis = (list, label) => {
  const sign = content.direction === "minimize" ? 1 : -1, found = list.filter((v) => v !== null).sort((a, b) => sign * (a - b));
  const at = (share) => found[Math.min(found.length - 1, Math.floor(share * found.length))];
  const wide = sign > 0 && positive(found) && Math.max(at(0), at(0.98)) > 20 * Math.min(at(0), at(0.98));
  const to = wide ? Math.log10 : (v) => v, [best, most, worst] = [at(0), at(0.98), at(1)].map(to), span = Math.abs(most - best);
  const title = plain(label), type = { exponentformat: "power", ...(wide ? { type: "log" } : {}) };
  if (!(span > 0) || Math.abs(worst - most) < span) return { title: { text: title }, ...type };
  const ends = [best - sign * 0.05 * span, most + sign * 0.1 * span];
  return { title: { text: `${title}, without the farthest` }, range: sign > 0 ? ends : ends.reverse(), ...type };
};
const about = (row) => [`trial ${content.trials[row]}`,
  ...content.hyperparameters.filter((h) => h.values[row] !== null).slice(0, content.panels).map((h) => `${plain(h.name)} ${plain(text(h, h.values[row]))}`),
  `${plain(content.label)} ${number(values()[row])}`, content.statuses[row]].join("<br>");

function head() {
  document.title = content.title;
  $("title").textContent = content.title;
  $("subtitle").textContent = content.subtitle + (content.left_out ? `; ${content.left_out}` : "");
  const nav = $("contents");
  nav.replaceChildren(...[...document.querySelectorAll("main section:not([hidden])")].map((section) => {
    const link = element("a", section.querySelector("h2").textContent);
    link.href = `#${section.id}`;
    return link;
  }));
}

function lists() {
  const fill = (id, lines) => {
    if (show(id, lines.length)) $(id).querySelector("ul").replaceChildren(...lines.map((line) => element("li", line)));
  };
  fill("doubts", content.doubts);
  fill("asked", content.asked);
  $("space").tBodies[0].replaceChildren(...content.hyperparameters.map((h) => {
    const line = element("tr");
    line.append(element("td", h.name), element("td", h.domain));
    return line;
  }));
  fill("findings", content.findings.map(([trial, what, sentence]) => `trial ${trial}: ${what}. ${sentence}`));
  $("plan").querySelector("pre").textContent = content.plan;
  $("reproducibility").querySelector("pre").textContent = content.reproducibility;
}

function columns() {
  const made = [{ name: "trial", of: (row) => content.trials[row], text: (row) => String(content.trials[row]) }];
  const metrics = [content.metric, ...Object.keys(content.metrics).filter((name) => name !== content.metric)];
  for (const name of metrics) {
    made.push({ name, of: (row) => content.metrics[name][row], text: (row) => number(content.metrics[name][row]) });
  }
  for (const h of content.hyperparameters) {
    made.push({ name: h.name, words: h.options.length > 0, of: (row) => h.options.length ? text(h, h.values[row]) : h.values[row],
                text: (row) => text(h, h.values[row]) });
  }
  made.push({ name: "status", words: true, of: (row) => content.statuses[row], text: (row) => content.statuses[row] });
  made.push({ name: "step", of: (row) => content.steps[row], text: (row) => String(content.steps[row]) });
  return made;
}

function table() {
  const made = columns(), header = element("tr"), { column: focused, trial: at } = document.activeElement?.dataset ?? {};
  for (const column of made) {
    const cell = element("th", undefined, column.words ? "text" : ""), button = element("button", column.name);
    button.type = "button";
    button.dataset.column = column.name;
    const own = sort && sort.name === column.name;
    cell.setAttribute("aria-sort", own ? (sort.up ? "ascending" : "descending") : "none");
    if (own) button.textContent += sort.up ? " ▲" : " ▼";
    button.onclick = () => { sort = { name: column.name, up: own ? !sort.up : true }; table(); };
    cell.append(button);
    header.append(cell);
  }
  $("trials").tHead.replaceChildren(header);
  if (focused !== undefined) [...header.querySelectorAll("button")].find((each) => each.dataset.column === focused)?.focus();
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  let order = content.trials.map((_, row) => row);
  if (words.length) {
    order = order.filter((row) => {
      const line = made.map((column) => column.text(row).toLowerCase());
      return words.every((word) => line.some((cell) => cell.includes(word)));
    });
  }
  const by = sort && made.find((column) => column.name === sort.name);
  if (by) {
    const sign = sort.up ? 1 : -1;
    order.sort((a, b) => {
      const x = by.of(a), y = by.of(b);
      if (x === null || x === "–") return 1;
      if (y === null || y === "–") return -1;
      return sign * (x < y ? -1 : x > y ? 1 : 0) || a - b;
    });
  }
  $("trials").tBodies[0].replaceChildren(...order.slice(0, rows).map((row) => {
    const line = element("tr");
    line.append(...made.map((column) => element("td", column.text(row), column.words ? "text" : "")));
    line.dataset.trial = content.trials[row];
    line.tabIndex = 0;
    line.onclick = () => { picked = picked === content.trials[row] ? null : content.trials[row]; table(); curves(); };
    line.onkeydown = (event) => { if (event.key === "Enter") line.onclick(); };
    line.setAttribute("aria-selected", picked === content.trials[row]);
    line.classList.toggle("picked", picked === content.trials[row]);
    line.classList.toggle("best", content.best && row === 0);
    return line;
  }));
  if (at !== undefined) $("trials").tBodies[0].querySelector(`[data-trial="${at}"]`)?.focus();
  $("shown").textContent = `${Math.min(rows, order.length)} of ${order.length}`;
  $("more").hidden = rows >= order.length;
}

function select(id, options, chosen) {
  const made = $(id), before = made.value;
  if (JSON.stringify(options) === made.dataset.options) return;  // an open list stays open
  made.dataset.options = JSON.stringify(options);
  made.replaceChildren(...options.map(([value, label]) => { const o = element("option", label); o.value = value; return o; }));
  made.value = options.some(([value]) => value === before) ? before : chosen;
}

function brush() {
  const h = content.hyperparameters.find((each) => each.name === $("brushed").value);
  if (!h) { $("range").textContent = ""; return () => true; }
  const found = h.values.filter((v) => v !== null);
  const log = !h.options.length && (h.scale === "log" || h.scale === "reverse log");
  const to = (v) => log ? Math.log(placed(h, v)) : v;
  const low = Math.min(...found.map(to)), high = Math.max(...found.map(to));
  const ends = [Number($("from").value), Number($("to").value)].map((share) => low + (high - low) * share / 1000);
  const [a, b] = ends[0] <= ends[1] ? ends : [ends[1], ends[0]];
  const slack = 1e-9 * (Math.abs(low) + Math.abs(high));
  const back = (x) => { const v = log ? Math.exp(x) : x; return h.scale === "reverse log" && log ? 1 - v : v; };
  $("range").textContent = h.options.length ? h.options.slice(Math.ceil(a), Math.floor(b) + 1).join(", ")
    : `${number(back(a))} … ${number(back(b))}`;
  return (row) => h.values[row] !== null && to(h.values[row]) >= a - slack && to(h.values[row]) <= b + slack;
}

function curves() {
  if (!window.Plotly || $("curves").hidden) return;
  select("brushed", [["", "any"], ...varied().map((h) => [h.name, h.name])], "");
  const kept = brush(), row = new Map(content.trials.map((trial, at) => [trial, at]));
  // A few traces, with gaps between lanes, are drawn in an instant where one for each would take seconds.
  const groups = { faded: [[], [], []], others: [[], [], []], best: [[], [], []],
    "others once": [[], [], []], "best once": [[], [], []] };
  const front = picked !== null ? picked : content.best ? content.trials[0] : null;
  for (const lane of content.lanes) {
    const name = lane.trial === front ? "best" : kept(row.get(lane.trial)) ? "others" : "faded";
    const [x, y, who] = groups[lane.steps.length === 1 && name !== "faded" ? `${name} once` : name];
    x.push(...lane.steps, null);
    y.push(...lane.values, null);
    who.push(...lane.steps.map(() => `trial ${lane.trial}`), "");
  }
  const dots = (name, color, size) => ({ ...trace(name, {}), mode: "markers", marker: { color, size } });
  const trace = (name, line) => ({ x: groups[name][0], y: groups[name][1], text: groups[name][2], mode: "lines", type: "scatter",
    connectgaps: false, line, hovertemplate: "%{text}<br>step %{x}<br>%{y:.4g}<extra></extra>", hoverinfo: name === "faded" ? "skip" : undefined });
  draw("chart-curves", [
    trace("faded", { color: dark() ? "rgba(150,150,150,0.10)" : "rgba(120,120,120,0.10)", width: 1 }),
    trace("others", { color: "rgba(86,150,200,0.35)", width: 1 }),
    trace("best", { color: ORANGE, width: 3 }),
    ...(groups["others once"][0].length ? [dots("others once", "rgba(86,150,200,0.6)", 4)] : []),
    ...(groups["best once"][0].length ? [dots("best once", ORANGE, 9)] : []),
  ], { xaxis: { title: { text: "optimizer step" } }, yaxis: objectiveAxis(content.lanes.flatMap((lane) => lane.values), content.metric), hovermode: "closest" });
}

function slices() {
  const shown = varied().slice(0, content.panels), found = values();
  const across = innerWidth < 600 ? 1 : Math.min(3, shown.length), down = Math.ceil(shown.length / across);
  const more = { height: 260 * down + 40, grid: { rows: down, columns: across, pattern: "independent", xgap: 0.24, ygap: 0.28 }, margin: { l: 60, r: 15, t: 15, b: 50 } };
  const traces = shown.flatMap((h, at) => {
    const n = at ? at + 1 : "", line = dark() ? "#38404a" : "#e3e7ec";
    more[`xaxis${n}`] = { gridcolor: line, zeroline: false, automargin: true, ...axisOf(h) };
    more[`yaxis${n}`] = { gridcolor: line, zeroline: false, automargin: true, ...objectiveAxis(found, content.label) };
    const x = h.options.length ? h.values.map((v, i) => v === null ? null : v + (((i * 0.618) % 1) - 0.5) * 0.4) : h.values.map((v) => placed(h, v));
    const best = h.isolated.map(([v]) => placed(h, v)), own = { x: best, xaxis: `x${n}`, yaxis: `y${n}`, type: "scatter" };
    return [{ x, y: found, xaxis: `x${n}`, yaxis: `y${n}`, mode: "markers", type: found.length > 1000 ? "scattergl" : "scatter", text: found.map((_, row) => about(row)),
      hovertemplate: "%{text}<extra></extra>", marker: { size: found.map((_, row) => isBest(row) ? 10 : 5), opacity: 0.7, color: found.map((_, row) => isBest(row) ? ORANGE : content.behind[row] ? GREY : BLUE) } },
      { ...own, y: h.isolated.map(([, reached]) => reached), mode: h.options.length ? "markers" : "lines", line: { color: ORANGE, width: 2 },
        marker: { color: ORANGE, size: 8 }, hovertemplate: "best of these %{y:.4g}<extra></extra>" },
      { ...own, y: h.isolated.map(([, , expected]) => expected), mode: "markers", marker: { symbol: "square-open", color: dark() ? "#e8eaee" : "#1c1f24", size: 8 },
        hovertemplate: "expected best %{y:.4g}<extra></extra>" }];
  });
  const { xaxis, yaxis, ...rest } = more;
  Plotly.react($("chart-slices"), traces, { ...layout(rest), xaxis, yaxis }, config);
}

function parallel() {
  const shown = varied(), found = values();
  const rows = found.map((_, row) => row).filter((row) => found[row] !== null);
  const log = objectiveAxis(found, "").type === "log";
  const scaled = (h) => rows.map((row) => {
    const v = placed(h, h.values[row]);
    return v === null ? null : !h.options.length && (h.scale === "log" || h.scale === "reverse log") ? Math.log10(v) : v;
  });
  const ticks = (list) => {
    const known = list.filter((v) => v !== null), low = Math.floor(Math.min(...known)), high = Math.ceil(Math.max(...known));
    const tickvals = []; for (let e = low; e <= high; e++) if (e >= Math.min(...known) && e <= Math.max(...known)) tickvals.push(e);
    if (tickvals.length < 2) { tickvals.length = 0; for (let k = 0; k < 5; k++) tickvals.push(Math.min(...known) + (Math.max(...known) - Math.min(...known)) * k / 4); }
    return { tickvals, ticktext: tickvals.map((e) => Number.isInteger(e) ? `1e${e}` : String(Number((10 ** e).toPrecision(2)))) };
  };
  const dimensions = shown.map((h) => {
    // Trials that do not have it cross below its values, at a dash.
    const list = scaled(h), known = list.filter((v) => v !== null), low = Math.min(...known), high = Math.max(...known);
    const absent = low - 0.15 * (high - low || 1), own = list.map((v) => v === null ? absent : v);
    if (known.length < list.length) {
      const named = h.options.length ? { tickvals: h.options.map((_, i) => i), ticktext: h.options }
        : h.scale === "linear" ? { tickvals: [low, high], ticktext: [number(low), number(high)] } : ticks(known);
      return { label: h.scale === "reverse log" ? `1 − ${h.name}` : h.name, values: own, range: [absent, high],
        tickvals: [absent, ...named.tickvals], ticktext: ["–", ...named.ticktext] };
    }
    return { label: h.scale === "reverse log" && !h.options.length ? `1 − ${h.name}` : h.name, values: own,
      ...(h.options.length ? { tickvals: h.options.map((_, i) => i), ticktext: h.options } : h.scale === "log" || h.scale === "reverse log" ? ticks(own) : {}) };
  });
  const objective = rows.map((row) => log ? Math.log10(found[row]) : found[row]);
  dimensions.push({ label: content.label, values: objective, ...(log ? ticks(objective) : {}) });
  const width = Math.max($("parallel").clientWidth, 110 * dimensions.length);
  const escaped = dimensions.map((d) => ({ ...d, label: plain(d.label) }));
  const sign = content.direction === "minimize";
  draw("chart-parallel", [{ type: "parcoords", dimensions: escaped, labelangle: dimensions.length > 6 ? -15 : 0, line: { color: objective,
    colorscale: "Viridis", reversescale: sign, showscale: false } }], { width, height: 420, margin: { l: 60, r: 60, t: 70, b: 30 } });
}

function contour() {
  const shown = varied(), found = values();
  const first = content.importance.map(([name]) => name).filter((name) => shown.some((h) => h.name === name));
  const names = shown.map((h) => [h.name, h.name]);
  select("across", names, first[0] ?? shown[0].name);
  select("up", names, first[1] ?? shown.find((h) => h.name !== (first[0] ?? shown[0].name)).name);
  const [x, y] = ["across", "up"].map((id) => shown.find((h) => h.name === $(id).value));
  const rows = found.map((_, row) => row).filter((row) => found[row] !== null && !content.behind[row] && x.values[row] !== null && y.values[row] !== null);
  const log = objectiveAxis(found, "").type === "log", z = rows.map((row) => log ? Math.log10(found[row]) : found[row]);
  const bar = { title: { text: plain(log ? `log₁₀ ${content.label}` : content.label) }, thickness: 12, ...(innerWidth < 600 ? { orientation: "h", y: 1, yanchor: "bottom" } : {}) };
  const sign = content.direction === "minimize";
  const points = { x: rows.map((row) => placed(x, x.values[row])), y: rows.map((row) => placed(y, y.values[row])) };
  const at = { type: "contour", ...points, z, colorscale: "Viridis", reversescale: sign, connectgaps: true, ncontours: 12, contours: { showlines: false }, opacity: 0.85, colorbar: bar, hoverinfo: "skip" };
  const grid = smooth(x, y, points, z);
  const dots = { type: "scatter", mode: "markers", ...points, text: rows.map(about), hovertemplate: "%{text}<extra></extra>",
    marker: { size: 6, color: z, colorscale: "Viridis", reversescale: sign, line: { width: 1, color: dark() ? "#15181d" : "#ffffff" }, ...(grid ? {} : { colorbar: bar }) } };
  draw("chart-contour", grid ? [{ ...at, ...grid }, dots] : [dots], { xaxis: axisOf(x), yaxis: axisOf(y), height: 460 });
}

// Kernel regression on a grid, on the scales of the axes; not where a hyperparameter is a choice.
function smooth(x, y, points, z) {
  if (x.options.length || y.options.length || x === y || z.length < 8) return null;
  const logs = [x, y].map((h) => h.scale === "log" || h.scale === "reverse log");
  const raw = [points.x, points.y].map((list, i) => logs[i] ? list.map(Math.log) : list);
  const ends = raw.map((list) => [Math.min(...list), Math.max(...list)]);
  if (ends.some(([a, b]) => a === b)) return null;
  const unit = raw.map((list, i) => list.map((v) => (v - ends[i][0]) / (ends[i][1] - ends[i][0])));
  const N = 32, h2 = 2 * Math.max(0.05, 0.5 * z.length ** -0.3) ** 2, lines = [];
  for (let j = 0; j < N; j++) {
    const line = [];
    for (let i = 0; i < N; i++) {
      let sum = 0, weight = 0;
      for (let k = 0; k < z.length; k++) {
        const d = (unit[0][k] - i / (N - 1)) ** 2 + (unit[1][k] - j / (N - 1)) ** 2, w = Math.exp(-d / h2);
        sum += w * z[k]; weight += w;
      }
      line.push(weight > 1e-3 ? sum / weight : null);
    }
    lines.push(line);
  }
  const ticks = ends.map(([a, b], i) => Array.from({ length: N }, (_, k) => { const v = a + (b - a) * k / (N - 1); return logs[i] ? Math.exp(v) : v; }));
  return { x: ticks[0], y: ticks[1], z: lines };
}

function importance() {
  const found = [...content.importance].reverse();
  const ends = (sign) => found.map(([, value, low, high]) => low === null ? 0 : Math.max(0, sign > 0 ? high - value : value - low));
  draw("chart-importance", [{ type: "bar", orientation: "h", y: found.map(([name]) => plain(name)), x: found.map(([, value]) => value),
    marker: { color: BLUE }, error_x: { type: "data", array: ends(1), arrayminus: ends(-1), color: GREY, thickness: 1.5 },
    hovertemplate: "%{y} %{x:.3f}<extra></extra>" }],
    { height: 80 + 26 * found.length, xaxis: { title: { text: `share (PED-ANOVA)${content.importance[0][2] === null ? "" : ", with 90 % intervals"}` }, rangemode: "tozero" }, margin: { l: 20, r: 20, t: 10, b: 50 } });
}

function rungs() {
  const [steps, live] = content.rungs;
  const last = Math.max(...content.steps), x = [0, ...steps, last], y = [...live, live[live.length - 1]];
  draw("chart-rungs", [{ x, y, mode: "lines+markers", line: { shape: "hv", color: BLUE }, marker: { color: BLUE },
    hovertemplate: "%{y} trials from step %{x}<extra></extra>" }],
    { height: 300, xaxis: { title: { text: "optimizer step" } }, yaxis: { title: { text: "trials that train" }, rangemode: "tozero" } });
}

function lineage() {
  const last = Math.max(...content.steps), trials = [...new Set(content.lineage.flatMap((c) => [c.trial, c.source]))].sort((a, b) => a - b);
  const lines = { x: [], y: [] }, copies = { x: [], y: [], text: [] };
  for (const trial of trials) { lines.x.push(0, last, null); lines.y.push(trial, trial, null); }
  const own = { x: [], y: [] };
  for (const [trial, begin, end] of content.ancestry) { own.x.push(begin, end); own.y.push(trial, trial); }
  const arrows = content.lineage.slice(0, content.arrows).map((c) => ({ x: c.step, y: c.trial, ax: c.step, ay: c.source, xref: "x", yref: "y", axref: "x", ayref: "y",
    showarrow: true, arrowhead: 3, arrowsize: 1, arrowwidth: 1.2, arrowcolor: ORANGE, text: "" }));
  for (const c of content.lineage) { copies.x.push(c.step); copies.y.push(c.trial); copies.text.push(`trial ${c.trial} goes on from trial ${c.source} at step ${c.step}`); }
  draw("chart-lineage", [
    { ...lines, mode: "lines", line: { color: GREY, width: 1 }, hoverinfo: "skip" },
    { ...own, mode: "lines", line: { color: BLUE, width: 3 }, hovertemplate: "who trained the best trial: trial %{y}<extra></extra>" },
    { ...copies, mode: "markers", marker: { color: ORANGE, size: 6 }, hovertemplate: "%{text}<extra></extra>" },
  ], { height: Math.min(900, 120 + 18 * trials.length), annotations: arrows, xaxis: { title: { text: "optimizer step" } }, yaxis: { title: { text: "trial; arrows: whose state it took; blue: the best's" } } });
  schedules();
}

// The hyperparameters of the best members of a population over their training, the best one's in front.
const scheduled = (s, h) => Object.hasOwn(s.values, h.name) ? s.values[h.name] : [];
function schedules() {
  const moved = content.hyperparameters.filter((h) => content.schedules.some((s) => new Set(scheduled(s, h)).size > 1)).slice(0, content.panels);
  if (!show("chart-schedules", moved.length)) return;
  const across = innerWidth < 600 ? 1 : Math.min(3, moved.length), down = Math.ceil(moved.length / across);
  const more = { height: 240 * down + 40, grid: { rows: down, columns: across, pattern: "independent", xgap: 0.26, ygap: 0.3 } }, traces = [];
  moved.forEach((h, at) => {
    const n = at ? at + 1 : "", { title, ...axis } = axisOf(h), line = dark() ? "#38404a" : "#e3e7ec";
    more[`xaxis${n}`] = { gridcolor: line, zeroline: false, automargin: true, title: { text: "optimizer step" } };
    more[`yaxis${n}`] = { gridcolor: line, zeroline: false, automargin: true, title, ...axis };
    for (const [s, first] of content.schedules.map((s, i) => [s, i === 0]).reverse()) {
      if (!scheduled(s, h).length) continue;
      const y = scheduled(s, h).map((v) => placed(h, v));
      traces.push({ x: [...s.steps, s.end], y: [...y, y[y.length - 1]], xaxis: `x${n}`, yaxis: `y${n}`, mode: "lines",
        line: { shape: "hv", width: first ? 3 : 1, color: first ? ORANGE : "rgba(86,150,200,0.5)" }, text: `trial ${s.trial}`,
        hovertemplate: `trial ${s.trial}<br>from step %{x}<br>%{y:.4g}<extra></extra>` });
    }
  });
  const { xaxis, yaxis, ...rest } = more;
  Plotly.react($("chart-schedules"), traces, { ...layout(rest), xaxis, yaxis }, config);
}

// Charts are drawn when they are looked at, so that a page opens at once.
const charts = { slices, parallel, contour, importance, rungs, lineage };
const finals = () => values().filter((v) => v !== null).length;
const there = {
  slices: () => varied().length && finals(), parallel: () => varied().length && finals() > 1,
  contour: () => varied().length > 1 && finals() > 3,
  importance: () => content.importance.length, rungs: () => content.rungs[0].length, lineage: () => content.lineage.length,
};
const stale = new Set(), seen = new Set();
const refresh = () => window.Plotly && [...stale].filter((id) => seen.has(id)).forEach((id) => { stale.delete(id); charts[id](); });
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) entry.isIntersecting ? seen.add(entry.target.id) : seen.delete(entry.target.id);
  refresh();
}, { rootMargin: "300px" });
for (const id of Object.keys(charts)) watcher.observe($(id));
addEventListener("beforeprint", () => { if (window.Plotly) for (const id of stale) charts[id](); stale.clear(); });
function texts() {
  for (const id of Object.keys(charts)) { show(id, there[id]()); stale.add(id); }
  show("curves", content.lanes.some((lane) => lane.steps.length));
  lists(); table(); head();
}
function pictures() {
  if (!window.Plotly) return;
  curves(); refresh();
}
function all() { texts(); pictures(); }
$("filter").oninput = () => { rows = LONG; table(); };
$("more").onclick = () => { rows += 10 * LONG; table(); };
for (const id of ["brushed", "from", "to"]) $(id).oninput = curves;
for (const id of ["across", "up"]) $(id).oninput = () => window.Plotly && contour();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
let wide = innerWidth;
addEventListener("resize", () => { if (Math.abs(innerWidth - wide) > 40) { wide = innerWidth; stale.add("slices").add("parallel"); refresh(); } });
texts();
// The library that draws takes a second or two to read: texts are there before.
requestAnimationFrame(() => setTimeout(() => {
  const library = element("script");
  library.src = URL.createObjectURL(new Blob([$("plotly").textContent], { type: "text/javascript" }));
  library.onload = pictures;
  document.head.append(library);
}));

// A page that is served asks for what is new until the run is finished.
const LIVE = {{live}};
let updated = new Date().toLocaleTimeString();
async function follow() {
  if (!LIVE || content.finished) return;
  try {
    const answer = await fetch(LIVE, { cache: "no-store" });
    if (answer.ok) {
      const read = await answer.json();
      if (read.error) $("state").textContent = `not updated since ${updated}: ${read.error}`;
      else {
        content = read;
        updated = new Date().toLocaleTimeString();
        all();
        $("state").textContent = content.finished ? "finished" : `live, at ${updated}`;
      }
    } else $("state").textContent = "the server refuses this page";
  } catch { $("state").textContent = `the server has ended; not updated since ${updated}`; }
  if (!content.finished) setTimeout(follow, 2000);
}
$("state").textContent = content.finished ? "" : LIVE ? "live" : "not finished when this page was made";
follow();
