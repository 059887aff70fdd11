"use strict";
// The charts. `window.unstuck` draws and erases all that scripts draw on the page: `parts` are charts, maps and the filter.
(() => {
  const root = document.documentElement;
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  let charts = [], phases = {}, texts = {}, domain = [], until = null;
  const kept = new Map(); // what the reader chose of each chart, by its name: scale and span

  // Numbers as the rest of the page writes them: 2.30, 8.1e-17.
  function number(value, digits = 3) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e-3 && size < 1e5) return size >= 10 ** (digits - 1) ? value.toFixed(0) : value.toPrecision(digits);
    return value.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e");
  }
  // Axis numbers: as short as they can be.
  function short(value) {
    if (value === null) return "";
    const text = number(value, 4);
    return text.includes("e") ? text : String(Number(text));
  }

  // A text of the page with its values filled in.
  const tell = (template, values) => template.replace(/\{(\w+)\}/g, (_, name) => values[name]);

  const strokes = { raw: "--pale", smooth: "--strong", plain: "--accent", check: "--check", dots: "--check", bars: "--accent", checks: "--check" };
  const dashes = [[], [6, 4], [2, 3], [10, 4, 2, 4], [1, 5], [14, 4]];
  const hues = ["--accent", "--check", "--healthy", "--mark", "--unknown", "--soft"];

  function series(line, index) {
    const isCheck = line.kind === "check", isDots = line.kind === "dots";
    const stroke = line.kind === "plain" ? colour(hues[index % hues.length]) : colour(strokes[line.kind]);
    const few = line.x.length <= 40;
    const beside = { bars: -1, checks: 1 }[line.kind];
    if (beside) return { label: line.label, stroke, fill: stroke, width: 0, paths: uPlot.paths.bars({ size: [0.36, 36, 1], align: beside }), points: { show: false }, value: (_, value) => number(value) };
    return {
      label: line.label,
      stroke,
      width: isDots ? 0 : line.kind === "raw" ? 1 : 2,
      dash: isCheck ? [6, 4] : line.kind === "plain" ? dashes[index % dashes.length] : [],
      points: { show: isDots || (isCheck ? line.x.length <= 60 : few && line.kind !== "smooth"), size: isDots ? 8 : isCheck ? 6 : 4, fill: stroke },
      value: (_, value) => number(value),
    };
  }

  // At least a tenth of the largest number, so that noise around a constant looks as flat as it is.
  function range(_, low, high) {
    if (low === null || high === null) return [0, 1];
    const least = 0.1 * Math.max(Math.abs(low), Math.abs(high)) || 1;
    const pad = Math.max(high - low, least) * 0.06 + Math.max(0, least - (high - low)) / 2;
    return [low >= 0 && low - pad < 0 ? 0 : low - pad, high + pad];
  }

  function withZero(_, low, high) {
    const pad = 0.06 * (Math.max(0, high) - Math.min(0, low)) || 1;
    return [low < 0 ? low - pad : 0, high > 0 ? high + pad : 0];
  }

  function decades(_, low, high) {
    if (!(low > 0) || !(high > 0)) return [0.1, 1];
    const ends = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    if (ends[0] === ends[1]) ends[1] += 1;
    return [10 ** ends[0], 10 ** ends[1]];
  }

  // Powers of ten, every second, third... of them where there are many.
  function powers(_, __, low, high) {
    const first = Math.round(Math.log10(low)), last = Math.round(Math.log10(high));
    const every = Math.ceil((last - first) / 7) || 1;
    const found = [];
    for (let power = first; power <= last; power += every) found.push(Number(`1e${power}`));
    return found;
  }

  // Names, of which each says how many letters it shares with the one before it.
  function whole(shortened) {
    const names = [];
    for (let i = 0; i < shortened.length; i += 2) names.push((names.at(-1) ?? "").slice(0, shortened[i]) + shortened[i + 1]);
    return names;
  }

  const shows = (plot, x) => x >= plot.scales.x.min && x <= plot.scales.x.max;

  // What happened, as upright lines; what to compare with, as a level one; where findings sit, by their numbers.
  function marks(chart) {
    return (plot) => {
      const { ctx, bbox } = plot, ratio = devicePixelRatio || 1;
      ctx.save();
      ctx.font = `${11 * ratio}px system-ui, sans-serif`;
      ctx.lineWidth = ratio;
      ctx.textBaseline = "alphabetic";
      ctx.setLineDash([3 * ratio, 3 * ratio]);
      const scale = plot.scales.y;
      if (chart.level && chart.level.value >= scale.min && chart.level.value <= scale.max) {
        const y = plot.valToPos(chart.level.value, "y", true);
        ctx.strokeStyle = ctx.fillStyle = colour("--soft");
        stroke(ctx, bbox.left, y, bbox.left + bbox.width, y);
        ctx.textAlign = "right";
        write(ctx, chart.level.label, bbox.left + bbox.width - 4 * ratio, y - 5 * ratio);
      }
      ctx.strokeStyle = ctx.fillStyle = colour("--mark");
      chart.marks.filter(({ x }) => shows(plot, x)).forEach(({ x, label }, i) => {
        const at = plot.valToPos(x, "x", true), isRight = at > bbox.left + bbox.width * 0.7;
        stroke(ctx, at, bbox.top, at, bbox.top + bbox.height);
        ctx.textAlign = isRight ? "right" : "left";
        write(ctx, label, at + (isRight ? -4 : 4) * ratio, bbox.top + (12 + 14 * i) * ratio);
      });
      ctx.setLineDash([]);
      chart.found.filter(({ x }) => shows(plot, x)).forEach(({ x, number: which }, i) => {
        const at = plot.valToPos(x, "x", true), y = bbox.top + bbox.height - (11 + 18 * (i % 6)) * ratio;
        stroke(ctx, at, bbox.top, at, bbox.top + bbox.height);
        badge(ctx, which, Math.min(Math.max(at, bbox.left + 9 * ratio), bbox.left + bbox.width - 9 * ratio), y, ratio);
      });
      if (chart.axis === "step") strip(plot, ratio);
      ctx.restore();
    };
  }

  function badge(ctx, which, x, y, ratio) {
    ctx.fillStyle = colour("--mark");
    ctx.beginPath();
    ctx.arc(x, y, 8 * ratio, 0, 2 * Math.PI);
    ctx.fill();
    ctx.fillStyle = colour("--card");
    ctx.textAlign = "center";
    ctx.font = `bold ${11 * ratio}px system-ui, sans-serif`;
    ctx.fillText(String(which), x, y + 4 * ratio);
  }

  // The phases, in a strip above the chart: epochs as bands with their numbers, evaluations as triangles.
  function strip(plot, ratio) {
    const { ctx, bbox } = plot, right = bbox.left + bbox.width, top = bbox.top - 16 * ratio;
    const at = (x) => Math.min(right, Math.max(bbox.left, plot.valToPos(x, "x", true)));
    const starts = phases.epochs;
    const every = Math.max(1, Math.ceil((starts.length * 4 * ratio) / bbox.width));
    ctx.font = `${10 * ratio}px system-ui, sans-serif`;
    ctx.textAlign = "center";
    let written = -Infinity;
    for (let i = 0; starts.length > 1 && i < starts.length; i += every) {
      const from = at(starts[i]), to = at(starts[i + every] ?? plot.scales.x.max);
      if (to <= from) continue;
      ctx.fillStyle = ctx.strokeStyle = colour("--band");
      if ((i / every) % 2) ctx.fillRect(from, top, to - from, 6 * ratio);
      else ctx.strokeRect(from, top + 0.5 * ratio, to - from, 5 * ratio);
      const middle = (from + to) / 2;
      if (middle - written < 26 * ratio || every > 1 && i % (every * 5)) continue;
      ctx.fillStyle = colour("--soft");
      ctx.textAlign = written < 0 ? "right" : "center"; // the first one's word stands over the axis' numbers
      ctx.fillText(written < 0 ? tell(texts.epoch, { number: i + 1 }) : String(i + 1), middle + (written < 0 ? 4 * ratio : 0), top - 4 * ratio);
      written = middle;
    }
    ctx.fillStyle = colour("--check");
    let last = -Infinity;
    for (const step of phases.evals) {
      const x = plot.valToPos(step, "x", true);
      if (x < bbox.left || x > right || x - last < 7 * ratio) continue;
      ctx.beginPath();
      ctx.moveTo(x - 3.5 * ratio, bbox.top - 8 * ratio);
      ctx.lineTo(x + 3.5 * ratio, bbox.top - 8 * ratio);
      ctx.lineTo(x, bbox.top - 2 * ratio);
      ctx.fill();
      last = x;
    }
  }

  function stroke(ctx, x0, y0, x1, y1) {
    ctx.beginPath();
    ctx.moveTo(x0, y0);
    ctx.lineTo(x1, y1);
    ctx.stroke();
  }

  // Words over lines, on a ground of their own.
  function write(ctx, text, x, y) {
    ctx.save();
    ctx.setLineDash([]);
    ctx.lineJoin = "round";
    ctx.lineWidth = 4 * (devicePixelRatio || 1);
    ctx.strokeStyle = colour("--card");
    ctx.strokeText(text, x, y);
    ctx.fillText(text, x, y);
    ctx.restore();
  }

  function axis(label, extra) {
    const grid = { stroke: colour("--faint"), width: 1 };
    return { label, stroke: colour("--soft"), grid, ticks: { ...grid, size: 4 }, font: "12px system-ui, sans-serif",
      labelFont: "12px system-ui, sans-serif", labelSize: 18, ...extra };
  }

  function options(chart, isLog, width) {
    const isWhole = chart.axis !== "eigenvalue", beside = chart.axis === "class" || chart.axis === "feature" ? 0.5 : 0;
    const whole = [1, 2, 5].flatMap((lead) => Array.from({ length: 9 }, (_, i) => lead * 10 ** i)).sort((a, b) => a - b);
    const hasStrip = chart.axis === "step" && (phases.epochs.length > 1 || phases.evals.length > 0);
    return {
      width,
      height: Math.round(Math.min(280, Math.max(210, width * 0.5))) + (hasStrip ? 20 : 0),
      padding: [hasStrip ? 30 : 10, 18, 0, 0],
      // x holds steps (or lags): without time: false they would be labelled as moments since 1970.
      scales: {
        x: { time: false, range: (_, low, high) => (low === high ? [low - 1, high + 1] : [low - beside, high + beside]) },
        y: isLog ? { distr: 3, range: decades } : { range: chart.zero ? withZero : range },
      },
      axes: [
        axis(chart.along, { ...(isWhole ? { incrs: whole } : {}), values: (_, splits) => splits.map(isWhole ? String : short), size: 30, space: 55 }),
        axis(chart.unit || null, { size: 62, values: (_, splits) => splits.map(short), ...(isLog ? { splits: powers, filter: (_, s) => s } : {}) }),
      ],
      series: [{ label: chart.along, value: (_, value) => (value === null ? "–" : isWhole ? String(value) : number(value)) }, ...chart.lines.map(series)],
      cursor: { y: false, drag: { x: true, y: false }, ...(chart.axis === "step" ? { sync: { key: "steps" } } : {}) },
      hooks: { draw: [marks(chart)], setScale: [() => { chart.whole.hidden = !chart.plot || !zoom(chart); }] },
    };
  }

  // All charts over steps span the same steps.
  function span() {
    const steps = charts.filter((chart) => chart.axis === "step").flatMap((chart) => chart.lines.flatMap((line) => line.x));
    return steps.length ? [steps.reduce((a, b) => Math.min(a, b)), steps.reduce((a, b) => Math.max(a, b))] : [];
  }

  // Each line has its own steps. What a line lacks where another has a point is no gap; what was null is one.
  function data(chart, isLog) {
    const drawn = (value) => (value !== null && isLog && value <= 0 ? null : value);
    const ends = chart.axis === "step" && domain[0] < domain[1] ? [[domain]] : [];
    const tables = [...ends, ...chart.lines.map((line) => [line.x, line.y.map(drawn)])];
    return uPlot.join(tables, tables.map((table) => table.map(() => 2))); // 2: a gap reaches to the line's own next point
  }

  function plot(chart) {
    const broken = until !== null && chart.axis === "step" ? { min: domain[0], max: until } : null;
    const zoomed = chart.plot ? zoom(chart) : kept.has(chart.id) ? kept.get(chart.id).zoomed : broken;
    chart.plot?.destroy();
    chart.plot = null;
    const width = Math.floor(chart.place.clientWidth);
    if (!width) return;
    chart.plot = new uPlot(options(chart, chart.log, width), data(chart, chart.log), chart.place);
    const canvas = chart.place.querySelector("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", chart.place.dataset.label);
    if (zoomed) chart.plot.setScale("x", zoomed);
  }

  // The span a reader zoomed to, null where the chart shows all there is.
  function zoom(chart) {
    const { min, max } = chart.plot.scales.x, xs = chart.plot.data[0];
    return min > xs[0] || max < xs[xs.length - 1] ? { min, max } : null;
  }

  const ofOneAxis = (chart) => (chart.axis === "step" ? charts.filter((other) => other.axis === "step") : [chart]).filter((other) => other.plot);
  const showAll = (chart) => ofOneAxis(chart).forEach((other) => other.plot.setData(other.plot.data));

  function prepare(chart) {
    const figure = document.getElementById(`chart-${chart.id}`);
    chart.place = figure.querySelector(".plot");
    chart.whole = figure.querySelector(".whole");
    chart.reading = figure.querySelector(".reading");
    chart.log = kept.get(chart.id)?.log ?? chart.log;
    const button = figure.querySelector(".scale");
    button.hidden = !chart.lines.some((line) => line.y.some((value) => value > 0));
    const show = () => button.setAttribute("aria-pressed", String(chart.log));
    button.addEventListener("click", () => { chart.log = !chart.log; chart.chosen = true; show(); plot(chart); });
    chart.whole.addEventListener("click", () => { showAll(chart); chart.place.focus(); });
    show();
    chart.place.tabIndex = 0;
    chart.place.setAttribute("role", "application");
    chart.place.setAttribute("aria-label", tell(texts.chart, { title: chart.place.dataset.title }));
    chart.place.addEventListener("keydown", (event) => { if (onKey(chart, event)) event.preventDefault(); });
    plot(chart);
    chart.watch = new ResizeObserver(() => {
      const width = Math.floor(chart.place.clientWidth);
      if (chart.plot && width && width !== chart.plot.width) chart.plot.setSize({ width, height: chart.plot.height });
      else if (!chart.plot && width) plot(chart);
    });
    chart.watch.observe(chart.place);
  }

  // Points that the arrow keys go to: those that are shown, where a line has a number.
  function stops(chart) {
    const [xs, ...ys] = chart.plot.data;
    return xs.map((_, i) => i).filter((i) => shows(chart.plot, xs[i]) && ys.some((y) => y[i] !== null && y[i] !== undefined));
  }

  function onKey(chart, event) {
    if (!chart.plot || event.ctrlKey || event.metaKey || event.altKey) return false;
    if (event.key === "Escape") return showAll(chart), true;
    if (event.key === "+" || event.key === "=") return closer(chart, 0.5);
    if (event.key === "-") return closer(chart, 2);
    const all = stops(chart), far = Math.max(1, Math.round(all.length / 10));
    const move = { ArrowLeft: event.shiftKey ? -far : -1, ArrowRight: event.shiftKey ? far : 1, PageUp: -far, PageDown: far, Home: -Infinity, End: Infinity }[event.key];
    if (move === undefined || !all.length) return false;
    const before = all.findIndex((i) => i >= (chart.at ?? -1));
    const start = chart.at === undefined ? (move > 0 ? -1 : all.length) : before < 0 ? all.length - 1 : before;
    point(chart, all[Math.min(all.length - 1, Math.max(0, start + move))]);
    return true;
  }

  function closer(chart, factor) {
    const { min, max } = chart.plot.scales.x, xs = chart.plot.data[0], half = ((max - min) * factor) / 2;
    const middle = chart.at === undefined ? (min + max) / 2 : xs[chart.at];
    const to = { min: Math.max(xs[0], middle - half), max: Math.min(xs[xs.length - 1], middle + half) };
    ofOneAxis(chart).forEach((other) => other.plot.setScale("x", to));
    return true;
  }

  // The cursor at a point, and its numbers in words.
  function point(chart, index) {
    chart.at = index;
    const [xs, ...ys] = chart.plot.data;
    chart.plot.setCursor({ left: chart.plot.valToPos(xs[index], "x"), top: 10 });
    const values = chart.lines.flatMap((line, i) => (ys[ys.length - chart.lines.length + i][index] ?? null) === null ? [] : [`${line.label} ${number(ys[ys.length - chart.lines.length + i][index])}`]);
    chart.reading.textContent = tell(texts.point, { axis: chart.along, at: chart.axis === "eigenvalue" ? number(xs[index]) : xs[index], values: values.join(", ") });
  }

  // The point nearest to a step, as a link from a finding asks for it.
  function go(id, step) {
    const chart = charts.find((one) => `chart-${one.id}` === id);
    if (!chart?.plot || chart.axis !== "step") return;
    const xs = chart.plot.data[0], all = stops(chart);
    if (all.length) point(chart, all.reduce((a, b) => (Math.abs(xs[b] - step) < Math.abs(xs[a] - step) ? b : a)));
    chart.place.focus({ preventScroll: true });
  }

  function keep(chart) {
    const before = kept.get(chart.id);
    kept.set(chart.id, { log: chart.chosen ? chart.log : before?.log, zoomed: chart.plot ? zoom(chart) : before?.zoomed });
  }

  const part = {
    draw(given) {
      ({ charts, phases, texts, until } = given);
      domain = span();
      charts.forEach(prepare);
    },
    erase() {
      for (const chart of charts) {
        keep(chart);
        chart.watch.disconnect();
        chart.plot?.destroy();
      }
      charts = [];
    },
    again: () => charts.forEach(plot),
    go,
  };

  // A page that grows replaces <main>: erase() before, draw() after it. What the reader chose is kept.
  const parts = [part];
  window.unstuck = {
    parts,
    number,
    tell,
    draw() {
      const given = JSON.parse(document.getElementById("data").textContent);
      given.names = whole(given.names);
      for (const one of parts) one.draw(given);
    },
    erase() {
      for (const one of parts) one.erase();
    },
  };
})();
