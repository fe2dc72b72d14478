"use strict";
// Sorting, copying, downloading. Texts of the document only ever become `textContent`.

const DATA = JSON.parse(document.getElementById("data").textContent);

function say(words) {
  document.getElementById("said").textContent = words;
}

function comparable(cell) {
  const value = cell.dataset.value ?? cell.textContent;
  return value === "" ? null : Number.isNaN(Number(value)) ? value : Number(value);
}

function sortBy(table, column, descending) {
  const models = [...table.querySelectorAll("tbody.model")];
  const values = new Map(models.map((body) => [body, comparable(body.rows[0].cells[column])]));
  models.sort((one, other) => {
    const [a, b] = [values.get(one), values.get(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    return descending ? -order : order;
  });
  table.append(...models);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const other = first === "descending" ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((each) => each.setAttribute("aria-sort", each === head ? order : "none"));
      sortBy(table, column, order === "descending");
      say(`Sorted by ${head.textContent.trim()}, ${order}.`);
    });
  });
}

async function copy(button) {
  const code = button.closest(".copied").querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    const range = document.createRange();
    range.selectNodeContents(code);
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    document.execCommand("copy");
  }
  const label = button.firstChild;
  label.textContent = "Copied";
  say("Copied.");
  setTimeout(() => { label.textContent = "Copy"; }, 1500);
}

async function download(name) {
  const packed = Uint8Array.from(atob(DATA.files[name]), (sign) => sign.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const url = URL.createObjectURL(await new Response(stream).blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.classList.contains("copy")) copy(button);
  if (button?.dataset.file) download(button.dataset.file);
});
