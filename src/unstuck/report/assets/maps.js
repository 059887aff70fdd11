"use strict";
// The maps: what a cell holds, by pointer and by keyboard, and any rows that the filter asks for.
(() => {
  const { number, tell, parts } = window.unstuck;
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const levels = 16, svgSpace = "http://www.w3.org/2000/svg";
  let maps = [], names = [], texts = {};

  // A cell's code, from 0 to `most` where it has a number; the next three are zero, broken, and not measured.
  function code(map, place, column) {
    let found = 0;
    const start = map.letters * (place * map.steps.length + column);
    for (let i = 0; i < map.letters; i++) found = found * 64 + letters.indexOf(map.cells[start + i]);
    return found;
  }

  function value(map, place, column) {
    const found = code(map, place, column);
    if (found > map.last) return [texts.zero, texts.broken, texts.missing][found - map.last - 1];
    const level = map.low + (found / map.last) * (map.high - map.low);
    return map.scale === "share" ? `${(100 * level).toFixed(0)}%` : tell(texts.about, { value: number(10 ** level, map.letters) });
  }

  // Which colour: one of the levels, or what has a look of its own; null where nothing is drawn.
  function kind(map, place, column) {
    const found = code(map, place, column);
    if (found > map.last) return ["zero", "broken", null][found - map.last - 1];
    return `k${Math.min(levels - 1, Math.floor((found / map.last) * levels))}`;
  }

  const rowHeight = (rows) => (rows <= 24 ? 16 : Math.max(3, Math.min(16, 480 / rows)));

  function prepare(map) {
    map.last = 64 ** map.letters - 4;
    map.places = map.names.flatMap(([start, count]) => Array.from({ length: count }, (_, i) => start + i));
    const every = Math.max(1, Math.ceil(map.places.length / map.most));
    map.first = thinned(map.places.map((_, i) => i), every);
    map.shown = map.wanted = map.first;
    map.figure = document.getElementById(`map-${map.id}`);
    map.isStale = !map.figure.querySelector(".drawn path");
    map.box = map.figure.querySelector(".cells");
    map.reading = map.figure.querySelector(".reading");
    map.box.tabIndex = 0;
    map.box.setAttribute("role", "application");
    map.box.setAttribute("aria-label", tell(texts.map, { title: map.box.dataset.title }));
    map.box.addEventListener("pointermove", (event) => {
      const box = map.box.getBoundingClientRect();
      const within = (at, size, count) => Math.min(count - 1, Math.max(0, Math.floor((at / size) * count)));
      if (map.shown.length) read(map, within(event.clientY - box.top, box.height, map.shown.length), within(event.clientX - box.left, box.width, map.steps.length));
    });
    map.box.addEventListener("pointerleave", () => clear(map));
    map.box.addEventListener("keydown", (event) => { if (onKey(map, event)) event.preventDefault(); });
    map.box.addEventListener("blur", () => clear(map));
  }

  // Of more rows than can be seen every so manieth, starting half as far in.
  const thinned = (places, every) => (every > 1 ? places.filter((_, i) => i % every === every >> 1) : places);

  function read(map, row, column) {
    map.at = [row, column];
    map.reading.textContent = tell(texts.cell, {
      place: names[map.places[map.shown[row]]], step: map.steps[column], signal: map.words, value: value(map, map.shown[row], column),
    });
    map.cursor ??= map.box.appendChild(Object.assign(document.createElement("i"), { className: "at" }));
    Object.assign(map.cursor.style, {
      left: `${(100 * column) / map.steps.length}%`, top: `${(100 * row) / map.shown.length}%`,
      width: `${100 / map.steps.length}%`, height: `${100 / map.shown.length}%`,
    });
  }

  function clear(map) {
    map.reading.textContent = "";
    map.cursor?.remove();
    map.cursor = null;
  }

  function onKey(map, event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !map.shown.length) return false;
    if (event.key === "Escape") return clear(map), true;
    const [row, column] = map.at ?? [0, -1], lastRow = map.shown.length - 1, lastColumn = map.steps.length - 1;
    const far = Math.max(1, Math.round(map.shown.length / 10));
    const to = {
      ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
      PageUp: [row - far, column], PageDown: [row + far, column],
      Home: [row, 0], End: [row, lastColumn],
    }[event.key];
    if (!to) return false;
    read(map, Math.min(lastRow, Math.max(0, to[0])), Math.min(lastColumn, Math.max(0, to[1])));
    return true;
  }

  const isHidden = (map) => Boolean(map.figure.closest("details:not([open])"));

  // What is closed is drawn when it is opened.
  function refresh(map) {
    if (!map.isStale || isHidden(map)) return;
    map.isStale = false;
    const every = show(map, map.wanted);
    map.reading.textContent = map.wanted.length === 0 ? texts.none : map.wanted !== map.first && every > 1 ? tell(texts.every, { all: map.wanted.length, every }) : "";
    map.figure.classList.toggle("empty", map.wanted.length === 0);
  }

  // The rows of these places: cells, labels and marks.
  function show(map, places) {
    const every = Math.max(1, Math.ceil(places.length / map.most));
    map.shown = thinned(places, every);
    map.at = null;
    clear(map);
    const height = rowHeight(map.shown.length);
    map.box.style.height = map.figure.querySelector(".names").style.height = `${Math.max(16, height * map.shown.length)}px`;
    cells(map);
    labels(map, height);
    flags(map);
    return every;
  }

  function cells(map) {
    const paths = new Map();
    map.shown.forEach((place, row) => {
      let start = 0, before = kind(map, place, 0);
      for (let column = 1; column <= map.steps.length; column++) {
        const now = column < map.steps.length ? kind(map, place, column) : undefined;
        if (now === before) continue;
        if (before) paths.set(before, `${paths.get(before) ?? ""}M${start} ${row}h${column - start}`);
        [start, before] = [column, now];
      }
    });
    const svg = map.box.querySelector("svg");
    svg.setAttribute("viewBox", `0 0 ${map.steps.length} ${Math.max(1, map.shown.length)}`);
    svg.querySelector(".drawn").replaceChildren(...[...paths].map(([look, path]) => {
      const made = document.createElementNS(svgSpace, "path");
      made.setAttribute("class", look);
      made.setAttribute("d", path);
      return made;
    }));
  }

  // A long name without what it has in common with the others, and of what is left the end.
  const LONGEST = 28;
  function short(name, shared) {
    if (name.length > LONGEST && shared && name.startsWith(shared)) name = `…${name.slice(shared.length)}`;
    return name.length > LONGEST ? `…${name.slice(1 - LONGEST)}` : name;
  }

  function labels(map, height) {
    const every = Math.max(1, Math.ceil(13 / height)), made = [];
    for (let row = 0; row < map.shown.length; row += every) {
      const name = names[map.places[map.shown[row]]];
      const label = Object.assign(document.createElement("button"), { type: "button", className: "pick", tabIndex: -1 });
      label.dataset.pick = name;
      label.textContent = short(name, map.shared);
      label.style.top = `${(row + 0.5) * height}px`;
      made.push(label);
    }
    map.figure.querySelector(".names").replaceChildren(...made);
  }

  function flags(map) {
    const rows = new Map(map.shown.map((place, row) => [place, row]));
    const made = map.found.filter((mark) => rows.has(mark.row)).map((mark) => {
      const flag = Object.assign(document.createElement("a"), { className: "flag", href: `#finding-${mark.number}`, textContent: mark.number, title: `${mark.number} ${mark.cause}: ${mark.place}` });
      flag.style.left = `${mark.left}%`;
      flag.style.top = `${(100 * (rows.get(mark.row) + 0.5)) / map.shown.length}%`;
      return flag;
    });
    map.box.querySelector(".flags").replaceChildren(...made);
  }

  // The cell of a place at a step, as a link from a finding asks for it.
  function go(id, step, place) {
    const map = maps.find((one) => `map-${one.id}` === id);
    if (!map) return;
    const row = map.shown.findIndex((shown) => names[map.places[shown]] === place);
    const far = map.steps.map((span) => Math.min(...span.split("–").map((end) => Math.abs(end - step))));
    if (row >= 0) read(map, row, far.indexOf(Math.min(...far)));
    map.box.focus({ preventScroll: true });
  }

  parts.push({
    draw(given) {
      ({ maps, names, texts } = given);
      maps.forEach(prepare);
      maps.forEach(refresh);
    },
    open: () => maps.forEach(refresh),
    erase() {
      maps = [];
    },
    // Rows whose name fits; null for all.
    filter(fits) {
      for (const map of maps) {
        map.wanted = fits ? map.places.flatMap((name, i) => (fits[name] ? [i] : [])) : map.first;
        map.isStale = true;
        refresh(map);
      }
    },
    go,
  });
})();
