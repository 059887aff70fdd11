"use strict";
// The filter by layer: rows of maps and tables, and findings. A name in quotes asks for that layer alone, and its parameters.
(() => {
  const { tell, parts } = window.unstuck;
  const mostRows = 100;
  let text = "", given = null, tables = [], fits = null, applied = "", waiting = false;

  // Whether a name fits: each word is part of it; in quotes, it is that layer or a parameter of it.
  function asked() {
    const wanted = text.trim().toLowerCase();
    if (!wanted) return null;
    if (/^".+"$/.test(wanted)) {
      const whole = wanted.slice(1, -1);
      return (name) => name === whole || name.startsWith(`${whole}.`);
    }
    const words = wanted.split(/\s+/);
    return (name) => words.every((word) => name.includes(word));
  }

  // A table as it was, and what of it is left to this script: rows without names, which are those of the last layers.
  function read(table) {
    const details = table.closest("details"), more = rowsOf(given.more[details?.id.replace("table-", "")] ?? []);
    const rows = [...table.tBodies[0].rows], first = given.num_layers - more.length;
    return { table, rows, names: rows.map((row) => row.cells[0].textContent.toLowerCase()), more, first, status: details?.querySelector(".rows"), isStale: true };
  }

  // Rows from columns: a text each, a line a cell, "=" for what stands above.
  function rowsOf(columns) {
    const cells = columns.map((text) => {
      let above = "";
      return text.split("\n").map((line) => (above = line === "=" ? above : line));
    });
    return (cells[0] ?? []).map((_, row) => cells.map((column) => column[row]));
  }

  const button = (text) => Object.assign(document.createElement("button"), { type: "button", className: "pick", textContent: text });

  function made(name, cells) {
    const row = document.createElement("tr"), head = document.createElement("th");
    head.scope = "row";
    head.append(button(name));
    row.append(head, ...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text, className: text.length > 44 ? "long" : "" })));
    return row;
  }

  // What is closed is filtered when it is opened.
  function refresh(one) {
    if (!one.isStale || one.table.closest("details:not([open])")) return;
    one.isStale = false;
    if (!one.hasButtons) one.rows.forEach(({ cells }) => cells[0].replaceChildren(button(cells[0].textContent)));
    one.hasButtons = true;
    let shown = 0;
    one.rows.forEach((row, i) => {
      row.hidden = Boolean(fits) && !fits(one.names[i]);
      shown += !row.hidden;
    });
    one.added?.forEach((row) => row.remove());
    const found = fits ? one.more.map((_, i) => i).filter((i) => fits(given.lower[one.first + i])) : [];
    one.added = found.slice(0, Math.max(0, mostRows - shown)).map((i) => made(given.names[one.first + i], one.more[i]));
    one.table.tBodies[0].append(...one.added);
    const fit = fits ? shown + found.length : one.rows.length + one.more.length, drawn = shown + one.added.length;
    if (one.status) one.status.textContent = drawn < fit ? tell(given.texts.rows, { some: drawn, all: fit }) : "";
  }

  function filterFindings(which) {
    const all = [...document.querySelectorAll(".finding")];
    const within = ([start, count]) => which.slice(start, start + count).some(Boolean);
    const own = (finding) => { const layers = given.findings[finding.dataset.number - 1]; return !layers.length || layers.some(within); };
    // One that holds another that fits stays, so that this one can be seen.
    all.forEach((finding) => { finding.hidden = Boolean(which) && !own(finding) && ![...finding.querySelectorAll(".finding")].some(own); });
    const hidden = all.filter((finding) => finding.hidden).length, status = document.querySelector(".filtered");
    status.hidden = !hidden;
    status.textContent = hidden ? tell(given.texts.findings, { some: all.length - hidden, all: all.length }) : "";
  }

  function apply() {
    waiting = false;
    const input = document.getElementById("filter");
    if (!input || text === applied) return;
    applied = text;
    fits = asked();
    const which = fits ? given.lower.map(fits) : null;
    for (const part of parts) part.filter?.(which);
    tables.forEach((one) => { one.isStale = true; refresh(one); });
    filterFindings(which);
    const counted = given.num_layers || given.names.length;
    const some = which ? which.slice(0, counted).filter(Boolean).length : 0;
    document.getElementById("shown").textContent = fits ? tell(given.num_layers ? given.texts.layers : given.texts.names, { some, all: counted }) : "";
  }

  function set(wanted) {
    const input = document.getElementById("filter");
    if (!input) return;
    text = input.value = wanted;
    if (!waiting) requestAnimationFrame(apply);
    waiting = true;
  }

  function onKey(event) {
    const input = document.getElementById("filter");
    if (!input || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/" && !event.target.closest("input, textarea, select, [contenteditable]")) {
      event.preventDefault();
      input.focus();
      input.select();
    } else if (event.key === "Escape" && event.target === input) set("");
  }

  addEventListener("keydown", onKey);
  addEventListener("input", (event) => { if (event.target.id === "filter") set(event.target.value); });
  addEventListener("click", (event) => {
    const picked = event.target.closest?.(".pick");
    if (picked) set(`"${picked.dataset.pick ?? picked.textContent}"`);
  });

  parts.push({
    draw(data) {
      given = data;
      given.lower = data.names.map((name) => name.toLowerCase());
      tables = [...document.querySelectorAll("table[data-of]")].map(read);
      fits = null;
      tables.forEach(refresh);
      const filter = document.querySelector(".filter");
      if (!filter) return;
      filter.hidden = false;
      applied = "";
      set(text);
    },
    erase() {},
    open: () => tables.forEach(refresh),
  });
})();
