// All trials of a front: filters, demands, and the best model that meets them.

const SYMBOLS = ["circle", "square", "triangle-up", "pentagon", "star", "cross"];
const place = document.getElementById("all-trials");
const field = (id) => document.getElementById(id);

function plain(words, most = 60) {
  const text = String(words);
  const half = Math.floor((most - 1) / 2);
  const short = text.length <= most ? text : `${text.slice(0, half)}…${text.slice(-half)}`;
  return short.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function shown(value) {
  if (value === true) return "yes";
  if (value === false) return "no";
  return typeof value === "number" ? String(Number(value.toPrecision(4))) : plain(value);
}

function number(id) {
  const text = field(id).value.trim();
  return text === "" ? null : Number(text);
}

function asked() {
  return { score: number("min-score"), speedup: number("min-speedup"), method: field("method").value,
    study: field("study").value, hide: field("hide").checked };
}

// Places of the trials that pass the filters, apart by whether they meet the demands.
function chosen(front, want) {
  const meeting = [];
  const others = [];
  front.trial.forEach((_, i) => {
    if (want.method !== "" && front.method[i] !== Number(want.method)) return;
    if (want.study !== "" && front.study[i] !== Number(want.study)) return;
    const meets = (want.score === null || front.score[i] >= want.score)
      && (want.speedup === null || front.speedup[i] >= want.speedup);
    (meets ? meeting : others).push(i);
  });
  return { meeting, others };
}

// Of the trials given, those that no other dominates, the fastest last.
function best(front, places) {
  const order = [...places].sort((a, b) => front.speedup[b] - front.speedup[a] || front.score[b] - front.score[a]);
  const kept = [];
  let highest = -Infinity;
  for (const i of order) {
    const last = kept[kept.length - 1];
    const same = last !== undefined && front.score[last] === front.score[i] && front.speedup[last] === front.speedup[i];
    if (front.score[i] > highest || same) kept.push(i);
    highest = Math.max(highest, front.score[i]);
  }
  return kept.reverse();
}

// As the report recommends: with a wanted score the fastest, with a wanted speedup alone the best.
function recommended(front, kept, want) {
  if (want.score !== null) return kept[kept.length - 1];
  if (want.speedup !== null) return kept[0];
  return kept.filter((i) => front.dense.score > 0 && front.score[i] >= front.keep * front.dense.score).pop();
}

function verdict(front, kept, want, many) {
  const demands = [];
  if (want.score !== null) demands.push(`a score of at least ${want.score}`);
  if (want.speedup !== null) demands.push(`a speedup of at least ${want.speedup}x`);
  const what = demands.length ? `with ${demands.join(" and ")}`
    : `that keeps ${Math.round(100 * front.keep)} % of the dense model's score`;
  const which = recommended(front, kept, want);
  if (which === undefined) return `There is no model ${what}; ${many} ${many === 1 ? "is" : "are"} shown.`;
  const kind = want.score === null && want.speedup !== null ? "Best" : "Fastest";
  return `${kind} ${what}: ${front.trial[which]}, ${front.speedup[which].toFixed(2)}x with ${front.score[which].toFixed(3)}.`;
}

function hover(front, i) {
  const range = (low, high, digits) => (low === null || high === null ? ""
    : ` (${low.toFixed(digits)} to ${high.toFixed(digits)})`);
  const lines = [`<b>${plain(front.trial[i])}</b>`,
    `${plain(front.metric)} ${front.score[i].toFixed(3)}${range(front.low[i], front.high[i], 3)}`,
    `${front.speedup[i].toFixed(2)}x${range(front.slow[i], front.fast[i], 2)}`,
    `method ${plain(front.methods[front.method[i]])}`];
  if (front.chain[i] !== null) lines.push(plain(front.chain[i]));
  for (const [name, column] of front.settings) {
    if (column[i] !== null) lines.push(`${plain(name)}: ${shown(column[i])}`);
  }
  return lines.join("<br>");
}

function bars(middle, low, high, colour) {
  const known = middle.map((_, i) => low[i] !== null && high[i] !== null);
  return { type: "data", symmetric: false, color: colour, thickness: 1.25, width: 0, visible: known.some(Boolean),
    array: middle.map((value, i) => (known[i] ? high[i] - value : 0)),
    arrayminus: middle.map((value, i) => (known[i] ? value - low[i] : 0)) };
}

function markers(front, places, marker, withBars) {
  const pick = (column) => places.map((i) => column[i]);
  const trace = { type: "scatter", mode: "markers", x: pick(front.speedup), y: pick(front.score), hoverinfo: "text",
    hovertext: places.map((i) => hover(front, i)), showlegend: false,
    marker: { symbol: places.map((i) => SYMBOLS[front.method[i] % SYMBOLS.length]), ...marker } };
  if (withBars) {
    trace.error_x = bars(trace.x, pick(front.slow), pick(front.fast), marker.color);
    trace.error_y = bars(trace.y, pick(front.low), pick(front.high), marker.color);
  }
  return trace;
}

function allTrials() {
  const front = DATA.fronts[Number(place.dataset.front)];
  const want = asked();
  const { meeting, others } = chosen(front, want);
  const kept = best(front, meeting);
  const onFront = new Set(kept);
  field("verdict").textContent = verdict(front, kept, want, meeting.length + others.length);
  const data = [];
  if (!want.hide) data.push(markers(front, others, { size: 6, color: "var(--rest)", opacity: 0.18 }));
  const beaten = meeting.filter((i) => !onFront.has(i));
  data.push(markers(front, beaten, { size: 6, color: "var(--rest)", opacity: beaten.length > 500 ? 0.35 : 0.65 }));
  data.push({ type: "scatter", mode: "lines", x: kept.map((i) => front.speedup[i]), y: kept.map((i) => front.score[i]),
    line: { shape: "vh", color: "var(--accent)", width: 1.25 }, opacity: 0.5, hoverinfo: "skip", showlegend: false });
  data.push(markers(front, kept, { size: 9, color: "var(--accent)" }, true));
  const which = recommended(front, kept, want);
  if (which !== undefined) {
    data.push({ type: "scatter", mode: "markers", x: [front.speedup[which]], y: [front.score[which]], hoverinfo: "skip",
      showlegend: false, marker: { symbol: "circle-open", size: 19, color: "var(--accent)", line: { width: 1.5 } } });
  }
  data.push({ type: "scatter", mode: "markers", x: [1], y: [front.dense.score], hoverinfo: "text", showlegend: false,
    hovertext: [`dense model<br>${plain(front.metric)} ${front.dense.score.toFixed(3)}`],
    error_y: bars([front.dense.score], [front.dense.low], [front.dense.high], "var(--ink)"),
    marker: { symbol: "diamond", size: 12, color: "var(--ink)" } });
  if (front.methods.length > 1) {
    front.methods.forEach((name, i) => data.push({ type: "scatter", mode: "markers", x: [null], y: [null],
      name: plain(name, 30), showlegend: true, hoverinfo: "skip",
      marker: { symbol: SYMBOLS[i % SYMBOLS.length], size: 8, color: "var(--soft)" } }));
  }
  return { data, layout: { height: 500, hovermode: "closest", shapes: demandLines(front, want),
    xaxis: speedAxis(front), yaxis: { title: { text: `${plain(front.metric)} on the dev rows` } } } };
}

function demandLines(front, want) {
  const line = { color: "var(--soft)", width: 1, dash: "dot" };
  const shapes = [];
  const score = want.score ?? (front.dense.score > 0 && want.speedup === null ? front.keep * front.dense.score : null);
  if (score !== null) shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: score, y1: score, line });
  if (want.speedup > 0) shapes.push({ type: "line", yref: "paper", y0: 0, y1: 1, x0: want.speedup, x1: want.speedup, line });
  return shapes;
}

function speedAxis(front) {
  let [low, high] = [1, 1];
  for (const value of front.speedup) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const where = place.clientWidth > 560 ? ` (${plain(front.scenario)}, ${plain(front.label, 40)})` : "";
  const given = { title: { text: `speedup over the dense model${where}` } };
  if (!(low > 0) || high / low <= 4) return { ...given, ticksuffix: "x" };
  const ticks = [];
  for (let i = Math.ceil(Math.log2(low * 0.85)); i <= Math.log2(high * 1.3); i += 1) ticks.push(2 ** i);
  return { ...given, type: "log", tickvals: ticks, ticktext: ticks.map((tick) => `${tick}x`) };
}

function offer(id, names) {
  const select = field(id);
  select.replaceChildren(new Option("all", ""), ...names.map((name, i) => new Option(name, i)));
  field(`${id}-label`).hidden = names.length < 2;
}

function show(number) {
  const front = DATA.fronts[number];
  place.dataset.front = number;
  offer("method", front.methods);
  offer("study", front.studies);
  field("min-score").value = front.min_score ?? "";
  field("min-speedup").value = front.min_speedup ?? "";
  update();
}

function update() {
  if (place.dataset.drawn) draw(place);
  else allTrials();
}

if (place) {
  makers.set("all-trials", allTrials);
  field("demands").addEventListener("input", (event) => {
    if (event.target.id === "which") show(Number(event.target.value));
    else update();
  });
  field("demands").addEventListener("submit", (event) => event.preventDefault());
  show(0);
}
