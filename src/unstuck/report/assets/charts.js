"use strict";
(() => {
  const root = document.documentElement;
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const charts = JSON.parse(document.getElementById("unstuck-charts").textContent);

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

  const strokes = { raw: "--pale", smooth: "--accent", plain: "--accent", check: "--check", dots: "--check" };
  const dashes = [[], [6, 4], [2, 3], [10, 4, 2, 4], [1, 5], [14, 4]];
  const hues = ["--accent", "--check", "--healthy", "--mark", "--unknown", "--soft"];

  function series(line, index) {
    const isCheck = line.kind === "check", isDots = line.kind === "dots";
    const stroke = line.kind === "plain" ? colour(hues[index % hues.length]) : colour(strokes[line.kind]);
    const few = line.x.length <= 40;
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

  // What happened, as upright lines, and what to compare with, as a level one.
  function marks(chart) {
    return (plot) => {
      const { ctx, bbox } = plot, ratio = devicePixelRatio || 1;
      ctx.save();
      ctx.font = `${11 * ratio}px system-ui, sans-serif`;
      ctx.lineWidth = ratio;
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
      chart.marks.forEach(({ x, label }, i) => {
        if (x < plot.scales.x.min || x > plot.scales.x.max) return;
        const at = plot.valToPos(x, "x", true), isRight = at > bbox.left + bbox.width * 0.7;
        stroke(ctx, at, bbox.top, at, bbox.top + bbox.height);
        ctx.textAlign = isRight ? "right" : "left";
        write(ctx, label, at + (isRight ? -4 : 4) * ratio, bbox.top + (12 + 14 * i) * ratio);
      });
      ctx.restore();
    };
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
    const isWhole = chart.axis !== "eigenvalue";
    const whole = [1, 2, 5].flatMap((lead) => Array.from({ length: 9 }, (_, i) => lead * 10 ** i)).sort((a, b) => a - b);
    return {
      width,
      height: Math.round(Math.min(280, Math.max(210, width * 0.5))),
      padding: [10, 18, 0, 0],
      // x holds steps (or lags): without time: false they would be labelled as moments since 1970.
      scales: {
        x: { time: false, range: (_, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) },
        y: isLog ? { distr: 3, range: decades } : { range },
      },
      axes: [
        axis(chart.axis, { ...(isWhole ? { incrs: whole } : {}), values: (_, splits) => splits.map(isWhole ? String : short), size: 30, space: 55 }),
        axis(null, { size: 62, values: (_, splits) => splits.map(short), ...(isLog ? { splits: powers, filter: (_, s) => s } : {}) }),
      ],
      series: [{ label: chart.axis, value: (_, value) => (value === null ? "–" : isWhole ? String(value) : number(value)) }, ...chart.lines.map(series)],
      cursor: { y: false, drag: { x: true, y: false }, ...(chart.axis === "step" ? { sync: { key: "steps" } } : {}) },
      hooks: { draw: [marks(chart)] },
    };
  }

  // All charts over steps span the same steps.
  const steps = charts.filter((chart) => chart.axis === "step").flatMap((chart) => chart.lines.flatMap((line) => line.x));
  const domain = steps.length ? [steps.reduce((a, b) => Math.min(a, b)), steps.reduce((a, b) => Math.max(a, b))] : [];

  // Each line has its own steps. What a line lacks where another has a point is no gap; what was null is one.
  function data(chart, isLog) {
    const drawn = (value) => (value !== null && isLog && value <= 0 ? null : value);
    const ends = chart.axis === "step" && domain[0] < domain[1] ? [[domain]] : [];
    return uPlot.join([...ends, ...chart.lines.map((line) => [line.x, line.y.map(drawn)])]);
  }

  function draw(chart) {
    const place = document.querySelector(`#chart-${chart.id} .plot`);
    chart.plot?.destroy();
    const width = Math.floor(place.clientWidth);
    if (!width) return;
    chart.plot = new uPlot(options(chart, chart.log, width), data(chart, chart.log), place);
  }

  function prepare(chart) {
    const button = document.querySelector(`#chart-${chart.id} button`);
    button.hidden = !chart.lines.some((line) => line.y.some((value) => value > 0));
    const show = () => button.setAttribute("aria-pressed", String(chart.log));
    button.addEventListener("click", () => { chart.log = !chart.log; show(); draw(chart); });
    show();
    draw(chart);
    const place = document.querySelector(`#chart-${chart.id} .plot`);
    new ResizeObserver(() => {
      const width = Math.floor(place.clientWidth);
      if (chart.plot && width && width !== chart.plot.width) chart.plot.setSize({ width, height: chart.plot.height });
      else if (!chart.plot && width) draw(chart);
    }).observe(place);
  }

  // The cell under the pointer, read back from the map's own code: two letters a cell.
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const most = letters.length ** 2 - 4;
  function value(svg, index) {
    const code = letters.indexOf(svg.dataset.cells[2 * index]) * 64 + letters.indexOf(svg.dataset.cells[2 * index + 1]);
    if (code > most) return ["exactly 0", "NaN or Inf", "not measured"][code - most - 1];
    const level = Number(svg.dataset.low) + (code / most) * (svg.dataset.high - svg.dataset.low);
    return svg.dataset.scale === "share" ? `${(100 * level).toFixed(0)}%` : `about ${number(10 ** level, 2)}`;
  }

  function read(figure) {
    const svg = figure.querySelector(".cells svg"), reading = figure.querySelector(".reading");
    const steps = svg.dataset.steps.split(" ");
    const names = [...svg.querySelectorAll("title")].map((title) => title.textContent.split(": ").slice(0, -1).join(": "));
    const signal = svg.parentElement.dataset.signal;
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const column = Math.min(steps.length - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * steps.length)));
      const row = Math.min(names.length - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * names.length)));
      reading.textContent = `${names[row]}, step ${steps[column]}: ${signal} ${value(svg, row * steps.length + column)}`;
    });
    svg.addEventListener("pointerleave", () => { reading.textContent = ""; });
  }

  charts.forEach(prepare);
  document.querySelectorAll("figure.map").forEach(read);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach(draw));
  addEventListener("beforeprint", () => { root.classList.add("printing"); charts.forEach(draw); });
  addEventListener("afterprint", () => { root.classList.remove("printing"); charts.forEach(draw); });
})();
