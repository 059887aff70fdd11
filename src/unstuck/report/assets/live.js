"use strict";
// Keeps a served page up to date: listens for news, fetches <main> anew and puts it in the old one's place, without the reader losing
// theirs. Scripts before this one define window.unstuck = { erase(), draw() } where there is something to draw.
(() => {
  const bar = document.getElementById("live");
  const words = JSON.parse(bar.dataset.words);
  const contact = bar.querySelector(".word"), told = bar.querySelector(".told"), button = bar.querySelector("button");
  const least = 1000, share = 0.2; // milliseconds between two fetches, and what part of the time they may take
  let shown = bar.dataset.state, newest = { state: shown, kind: bar.className.split(" ")[0], word: contact.textContent, says: told.textContent };
  let stream = null, timer = 0, next = 0, isPaused = false, isLost = false, isHeld = false;

  function say() {
    const kind = isLost ? "lost" : isPaused ? "paused" : newest.kind;
    bar.className = `${kind} screen`;
    const word = isLost ? words.lost : isPaused ? words.paused : newest.word || words.lost;
    if (contact.textContent !== word) contact.textContent = word;
    const says = isLost ? words.unanswered : isPaused && newest.state !== shown ? words.news : newest.says;
    if (told.textContent !== says) told.textContent = says;
    button.hidden = isLost || (newest.kind === "ended" && !isPaused);
  }

  // ------------------------------------------------------------------ what is new

  function listen() {
    if (stream) return;
    stream = new EventSource(bar.dataset.stream);
    stream.onmessage = (event) => {
      isLost = false;
      newest = JSON.parse(event.data);
      if (newest.kind === "lost") newest.state = shown;
      say();
      look();
    };
    stream.onerror = () => {
      isLost = true;
      say();
      if (stream.readyState === EventSource.CLOSED) { // it does not try again by itself
        stream = null;
        setTimeout(listen, 3000);
      }
    };
  }

  function look() {
    if (timer || isPaused || newest.state === shown) return;
    timer = setTimeout(fetched, Math.max(0, next - performance.now()));
  }

  async function fetched() {
    if (isBusy()) {
      timer = setTimeout(fetched, 300);
      return;
    }
    const began = performance.now();
    let wait = least;
    try {
      const answer = await fetch(bar.dataset.part, { cache: "no-store" });
      if (!answer.ok) throw new Error(`${answer.status}`);
      const text = await answer.text();
      if (!isPaused) swap(text, answer.headers.get("ETag"));
      wait = Math.max(least, (performance.now() - began) / share);
      isLost = stream?.readyState !== EventSource.OPEN;
    } catch {
      isLost = true;
      wait = 3000;
    }
    next = performance.now() + wait;
    timer = 0;
    say();
    look();
  }

  // The reader marks text or drags across a chart: what is under the pointer stays for that while.
  function isBusy() {
    const selection = getSelection();
    return isHeld || (!selection.isCollapsed && document.querySelector("main").contains(selection.anchorNode));
  }
  addEventListener("pointerdown", () => { isHeld = true; }, true);
  addEventListener("pointermove", (event) => { if (!event.buttons) isHeld = false; }, true); // it was let go outside of the window
  for (const end of ["pointerup", "pointercancel", "blur"]) addEventListener(end, () => { isHeld = false; }, true);

  // ------------------------------------------------------------------ the new page in the place of the old

  function swap(text, state) {
    const parsed = new DOMParser().parseFromString(text, "text/html");
    const page = parsed.querySelector("main");
    if (!page) throw new Error("no page");
    const old = document.querySelector("main");
    const kept = { places: places(old), fields: fields(old), details: open(old), focus: focus(old), scrolls: scrolls(old) };
    window.unstuck?.erase();
    old.replaceWith(document.adoptNode(page));
    const opened = named(page, "details", heading);
    for (const [key, isOpen] of kept.details) opened.get(key)?.toggleAttribute("open", isOpen);
    refill(page, kept.fields);
    window.unstuck?.draw();
    for (const [id] of kept.fields) page.querySelector(`#${CSS.escape(id)}`)?.dispatchEvent(new Event("input", { bubbles: true }));
    const scrolled = named(page, ".scroll", label);
    for (const [key, place] of kept.scrolls) scrolled.get(key)?.scrollTo(place);
    refocus(page, kept.focus);
    restore(page, kept.places);
    shown = state ?? newest.state;
    bar.dataset.state = shown;
  }

  // Elements of a kind by a name that is the same on the old page and the new one.
  function named(root, selector, name) {
    const found = new Map();
    for (const element of root.querySelectorAll(selector)) {
      const base = name(element);
      let key = base;
      for (let i = 2; found.has(key); i++) key = `${base} ${i}`;
      found.set(key, element);
    }
    return found;
  }
  const home = (element) => element.closest("[id]")?.id ?? "";
  const plain = (text) => text.replace(/[\d.,:%()–-]+/g, "").replace(/\s+/g, " ").trim();
  const heading = (element) => element.id || `${home(element.parentElement)} ${plain(element.querySelector("summary")?.textContent ?? "")}`;
  const label = (element) => element.id || `${home(element)} ${plain(element.getAttribute("aria-label") ?? "")}`;

  const open = (main) => [...named(main, "details", heading)].map(([key, element]) => [key, element.open]);

  function fields(main) {
    const found = [];
    for (const field of main.querySelectorAll("input[id], select[id], textarea[id]")) found.push([field.id, field.value]);
    const ticks = [...main.querySelectorAll('input[type="checkbox"]:checked')].map((box) => [box.name, box.value]);
    found.ticks = ticks;
    return found;
  }

  function refill(page, kept) {
    for (const [id, value] of kept) {
      const field = page.querySelector(`#${CSS.escape(id)}`);
      if (field) field.value = value;
    }
    for (const [name, value] of kept.ticks) {
      const box = page.querySelector(`input[type="checkbox"][name="${CSS.escape(name)}"][value="${CSS.escape(value)}"]`);
      if (box) box.checked = true;
    }
  }

  const reachable = 'a[href], button, input, select, textarea, summary, [tabindex="0"]';
  function focus(main) {
    const active = document.activeElement;
    if (!main.contains(active)) return null;
    const scope = active.id ? active : active.closest("[id]") ?? main;
    const among = scope === active ? -1 : [...scope.querySelectorAll(reachable)].indexOf(active);
    const range = typeof active.selectionStart === "number" ? [active.selectionStart, active.selectionEnd] : null;
    const text = active.tagName === "A" ? active.getAttribute("href") : null;
    return { id: scope.id, among, range, text };
  }

  function refocus(page, kept) {
    if (!kept) return;
    const scope = kept.id && kept.id !== page.id ? page.querySelector(`#${CSS.escape(kept.id)}`) : page;
    const link = kept.text && [...page.querySelectorAll("a[href]")].find((one) => one.getAttribute("href") === kept.text);
    const target = link || (kept.among < 0 ? scope : scope?.querySelectorAll(reachable)[kept.among]);
    target?.focus({ preventScroll: true });
    if (target && kept.range) target.setSelectionRange?.(...kept.range);
  }

  function scrolls(main) {
    return [...named(main, ".scroll", label)].filter(([, e]) => e.scrollTop || e.scrollLeft)
      .map(([key, e]) => [key, { top: e.scrollTop, left: e.scrollLeft, behavior: "instant" }]);
  }

  // What stands at the top of the window stays there, though what is above it may have grown.
  function places(main) {
    const found = [];
    for (const element of main.querySelectorAll("[id]")) {
      const top = element.getBoundingClientRect().top;
      if (top <= 120 && element.getClientRects().length) found.push([element.id, top]);
    }
    return { y: scrollY, anchors: found.sort((a, b) => b[1] - a[1]).slice(0, 20) };
  }

  function restore(page, kept) {
    if (!kept.y) return;
    scrollTo({ top: kept.y, behavior: "instant" });
    for (const [id, top] of kept.anchors) {
      const element = page.querySelector(`#${CSS.escape(id)}`);
      if (!element?.getClientRects().length) continue;
      scrollBy({ top: element.getBoundingClientRect().top - top, behavior: "instant" });
      return;
    }
  }

  // ------------------------------------------------------------------ what the reader wants

  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.setAttribute("aria-pressed", String(isPaused));
    button.textContent = isPaused ? words.resume : words.pause;
    if (isPaused) {
      clearTimeout(timer);
      timer = 0;
    }
    say();
    look();
  });

  // Nobody looks: nobody needs to be told.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) listen();
    else if (stream) {
      stream.close();
      stream = null;
    }
  });
  addEventListener("pagehide", () => stream?.close());
  addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    stream = null;
    listen();
  });

  say();
  if (!document.hidden) listen();
})();
