// Charts: drawn when they come near the window, in the colours of the page, and again when these change.

const CONFIG = { displayModeBar: false, displaylogo: false, responsive: true, showLink: false,
  sendData: false, plotlyServerURL: "", doubleClick: "reset" };
const makers = new Map();

function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Colours are given as `var(--name)`; only keys that hold colours are looked at, never a text of the document.
function coloured(value, isColour) {
  if (typeof value === "string") {
    const name = isColour ? /^var\((--[a-z0-9]+)\)$/.exec(value) : null;
    return name ? style(name[1]) : value;
  }
  if (Array.isArray(value)) return value.map((each) => coloured(each, isColour));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(
    ([key, each]) => [key, typeof each === "object" || /color/.test(key) ? coloured(each, /color/.test(key)) : each]));
}

function axis(given) {
  const { title, ...rest } = given ?? {};
  return { gridcolor: style("--grid"), zeroline: false, linecolor: style("--rule"), ticks: "", fixedrange: false,
    ...rest, title: { ...title, font: { size: 12, color: style("--soft") }, standoff: 8 } };
}

function layout(given) {
  const { xaxis, yaxis, ...rest } = given;
  return { font: { family: style("--sans"), size: 12, color: style("--soft") }, paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 52, r: 12, t: 12, b: 44 }, autosize: true,
    hoverlabel: { bgcolor: style("--paper"), bordercolor: style("--rest"), align: "left",
      font: { family: style("--sans"), size: 12, color: style("--ink") } },
    legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", font: { size: 12 } },
    bargap: 0.35, ...rest, xaxis: axis(xaxis), yaxis: axis(yaxis) };
}

function draw(place) {
  const maker = makers.get(place.id);
  const chart = maker ? maker() : DATA.charts[place.dataset.chart];
  if (chart.words) place.setAttribute("aria-label", chart.words);
  place.dataset.drawn = "yes";
  return Plotly.react(place, coloured(chart.data, false), layout(coloured(chart.layout, false)), CONFIG);
}

function redraw() {
  for (const place of document.querySelectorAll(".plot[data-drawn]")) draw(place);
}

const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    draw(target);
  }
}, { rootMargin: "400px 0px" });

// The first frame belongs to the static picture and the tables.
requestAnimationFrame(() => setTimeout(() => {
  for (const place of document.querySelectorAll(".plot")) near.observe(place);
}));

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

for (const select of document.querySelectorAll("select.pick")) {
  select.addEventListener("change", () => {
    for (const id of select.dataset.plots.split(" ")) {
      const place = document.getElementById(id);
      place.dataset.chart = `${id}-${select.value}`;
      if (place.dataset.drawn) draw(place);
    }
  });
}
