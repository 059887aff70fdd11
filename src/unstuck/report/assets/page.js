"use strict";
// What holds the page together: links open what they lead to, paper is light and open, and everything is drawn.
(() => {
  const { parts, draw } = window.unstuck;
  const root = document.documentElement;

  // What a link leads to may lie in something closed.
  function open(target) {
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  }

  addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#"]');
    const target = link && document.getElementById(link.hash.slice(1));
    if (!target) return;
    open(target);
    target.hidden = false;
    if (link.dataset.step !== undefined) requestAnimationFrame(() => parts.forEach((part) => part.go?.(target.id, Number(link.dataset.step), link.dataset.place)));
  });
  // Toggling doesn't bubble, but is captured.
  addEventListener("toggle", (event) => { if (event.target.open) parts.forEach((part) => part.open?.()); }, true);
  addEventListener("hashchange", () => open(document.getElementById(location.hash.slice(1))));

  const again = () => parts.forEach((part) => part.again?.());
  let opened = [];
  addEventListener("beforeprint", () => {
    root.classList.add("printing");
    opened = [...document.querySelectorAll("details[data-print]:not([open])")];
    opened.forEach((details) => { details.open = true; });
    again();
  });
  addEventListener("afterprint", () => {
    root.classList.remove("printing");
    opened.forEach((details) => { details.open = false; });
    again();
  });
  for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) matchMedia(query).addEventListener("change", again);

  draw();
  open(document.getElementById(location.hash.slice(1)));
})();
