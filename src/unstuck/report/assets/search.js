"use strict";
(() => {
  const said = JSON.parse(document.getElementById("unstuck-children").textContent);
  const reach = 20, size = 1000;

  // Whose each point is, read back from the shapes.
  function points(figure) {
    return [...figure.querySelectorAll("path[data-of]")].flatMap((path) => {
      const of = path.dataset.of.split(" ");
      return [...path.getAttribute("d").matchAll(/M(-?\d+) (-?\d+)/g)].map((at, i) => ({ of: of[i], x: at[1] / size, y: at[2] / size }));
    });
  }

  const figures = [...document.querySelectorAll("figure.plotted")].map((figure) => (
    { area: figure.querySelector(".area"), reading: figure.querySelector(".reading"), points: points(figure), rings: [] }
  ));

  function nearest(figure, event) {
    const box = figure.area.getBoundingClientRect();
    let best = null, least = reach;
    for (const point of figure.points) {
      const distance = Math.hypot(event.clientX - box.left - point.x * box.width, event.clientY - box.top - point.y * box.height);
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  }

  // The child under the pointer, in all pictures.
  function show(child) {
    for (const figure of figures) {
      figure.rings.forEach((ring) => ring.remove());
      figure.rings = child === null ? [] : figure.points.filter((point) => point.of === child).map((point) => {
        const ring = document.createElement("i");
        ring.className = "ring";
        ring.style.left = `${100 * point.x}%`;
        ring.style.top = `${100 * point.y}%`;
        return figure.area.appendChild(ring);
      });
    }
  }

  // What is said of it, in the half of the picture where it is not.
  function tell(figure, child, point) {
    figure.reading.hidden = child === null;
    figure.reading.textContent = child === null ? "" : said[child] ?? "";
    const isBelow = child !== null && point.y < 0.5;
    figure.reading.style.top = isBelow ? "auto" : ".5rem";
    figure.reading.style.bottom = isBelow ? ".5rem" : "auto";
  }

  let shown = null;
  for (const figure of figures) {
    if (!figure.points.length) continue;
    const read = (event) => {
      const point = nearest(figure, event), child = point && point.of;
      if (child === shown) return;
      shown = child;
      tell(figure, child, point);
      show(child);
    };
    figure.area.addEventListener("pointermove", read);
    figure.area.addEventListener("pointerdown", read);
    figure.area.addEventListener("pointerleave", () => { shown = null; tell(figure, null); show(null); });
  }
})();
