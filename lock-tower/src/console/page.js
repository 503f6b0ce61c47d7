// Refreshes what the page shows, in place.
"use strict";

const EVERY = 2000;
const WITHIN = 10000;

const shown = document.querySelector("main");
const failure = document.getElementById("failure");
const pause = document.getElementById("pause");
let isPaused = false;

// Where the windows of the tables are, and what has the focus.
function place() {
  const scrolled = new Map();
  for (const table of shown.querySelectorAll(".scroll")) {
    scrolled.set(table.id, table.scrollLeft);
  }
  return { scrolled, focus: shown.contains(document.activeElement) ? document.activeElement.id : "" };
}

function restore({ scrolled, focus }, x, y) {
  for (const [id, left] of scrolled) {
    const table = document.getElementById(id);
    if (table) table.scrollLeft = left;
  }
  if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
  window.scrollTo({ left: x, top: y, behavior: "instant" });
}

async function refresh() {
  const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(WITHIN) });
  if (!answer.ok) throw new Error(`it answered ${answer.status}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const next = page.querySelector("main #taken")?.closest("main");
  // A proxy that asks to log in, say.
  if (!next) throw new Error("it answered with another page");
  const [before, x, y] = [place(), window.scrollX, window.scrollY];
  shown.replaceChildren(...next.childNodes);
  restore(before, x, y);
}

function isInUse() {
  // What a person marks is not taken away.
  return isPaused || document.hidden || !document.getSelection().isCollapsed;
}

async function tick() {
  if (!isInUse()) {
    try {
      await refresh();
      failure.hidden = true;
      failure.textContent = "";
    } catch (error) {
      const text = `Not refreshed since ${document.getElementById("taken").textContent}: ${error.message}`;
      failure.hidden = false;
      // Read aloud once, and not at each try.
      if (failure.textContent !== text) failure.textContent = text;
    }
  }
  setTimeout(tick, EVERY);
}

pause.hidden = false;
pause.addEventListener("click", () => {
  isPaused = !isPaused;
  pause.setAttribute("aria-pressed", String(isPaused));
});
setTimeout(tick, EVERY);
