"use strict";
// The list of runs: sorted by a click on a heading, filtered by words, two of them compared. What was chosen outlives a new <main>.
(() => {
  let order = { key: "started", down: true };

  const rows = () => [...document.querySelectorAll("#runs tbody tr")];
  const headings = () => [...document.querySelectorAll("#runs thead th")];
  const column = (key) => headings().findIndex((heading) => heading.dataset.key === key);

  // What a row is sorted by: a number where the cell has one, else its text. Nothing comes last, whichever way.
  function value(row, at) {
    const cell = row.cells[at], number = cell.dataset.value;
    if (number === undefined) return cell.textContent.trim().toLowerCase();
    return number === "" ? null : number === "inf" ? Infinity : number === "-inf" ? -Infinity : Number(number);
  }

  function compared(a, b) {
    if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
    const before = typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true });
    return order.down ? -before : before;
  }

  function sort() {
    const at = column(order.key), body = document.querySelector("#runs tbody");
    const values = new Map(rows().map((row) => [row, value(row, at)]));
    body.append(...rows().sort((a, b) => compared(values.get(a), values.get(b))));
    for (const heading of headings()) {
      if (heading.dataset.key === order.key) heading.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    }
  }

  // Every word must be somewhere in the row.
  function filter() {
    const wanted = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows()) {
      const text = row.textContent.toLowerCase();
      row.hidden = !wanted.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    const said = document.getElementById("found");
    const says = wanted.length ? said.dataset.of.replace("{shown}", shown).replace("{all}", rows().length) : "";
    if (said.textContent !== says) said.textContent = says;
  }

  function compare() {
    const link = document.getElementById("compare"), all = [...document.querySelectorAll('#runs input[name="run"]')];
    const at = column("started"), started = (box) => value(box.closest("tr"), at) ?? 0;
    const chosen = all.filter((box) => box.checked).sort((a, b) => started(a) - started(b)).map((box) => box.value);
    for (const box of all) box.disabled = chosen.length === 2 && !box.checked;
    const isReady = chosen.length === 2;
    link.setAttribute("aria-disabled", String(!isReady));
    link.textContent = isReady ? link.dataset.two : link.dataset.choose;
    if (isReady) link.href = `/compare?a=${chosen[0]}&b=${chosen[1]}`;
    else link.removeAttribute("href");
  }

  function draw() {
    if (!document.getElementById("runs")) return;
    document.querySelector(".choose").hidden = false;
    sort();
    filter();
    compare();
  }

  document.addEventListener("click", (event) => {
    const heading = event.target.closest?.("#runs thead th[data-key]");
    if (!heading || !event.target.closest("button")) return;
    const key = heading.dataset.key, isText = ["name", "script", "status", "verdict"].includes(key);
    order = { key, down: order.key === key ? !order.down : !isText };
    sort();
  });
  document.addEventListener("input", (event) => {
    if (event.target.id === "filter") filter();
    if (event.target.name === "run") compare();
  });
  document.addEventListener("keydown", (event) => {
    const field = document.getElementById("filter");
    if (event.key === "/" && field && !event.target.matches("input, textarea")) {
      event.preventDefault();
      field.focus();
    }
    if (event.key === "Escape" && event.target === field) {
      field.value = "";
      filter();
    }
  });

  window.unstuck = { draw, erase() {} };
  draw();
})();
