// Refreshes what the page shows, in place.
"use strict";

const EVERY = 2000;
const WITHIN = 10000;

const heading = document.getElementById("heading");
const shown = document.querySelector("main");
const notice = document.getElementById("notice");
const failure = document.getElementById("failure");
const pause = document.getElementById("pause");
let isPaused = false;
// What ends the refresh that is under way.
let underWay = new AbortController();

// Makes `old` as `next` is, and leaves alone what is the same there: the focus, what is selected, and how far
// regions are scrolled stay.
function update(old, next) {
  if (old.isEqualNode(next)) return;
  if (old.nodeName !== next.nodeName || old.id !== next.id) {
    old.replaceWith(next);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    old.data = next.data;
    return;
  }
  for (const name of old.getAttributeNames()) {
    if (!next.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const name of next.getAttributeNames()) {
    if (old.getAttribute(name) !== next.getAttribute(name)) old.setAttribute(name, next.getAttribute(name));
  }
  const [had, has] = [[...old.childNodes], [...next.childNodes]];
  has.forEach((child, place) => (had[place] ? update(had[place], child) : old.append(child)));
  had.slice(has.length).forEach((child) => child.remove());
}

async function read() {
  const ends = new AbortController();
  underWay = ends;
  const late = setTimeout(() => ends.abort(new Error("it did not answer in time")), WITHIN);
  try {
    // Without what a person may have put before the host: a password, with which nothing is fetched.
    const here = location.origin + location.pathname + location.search;
    const answer = await fetch(here, { cache: "no-store", redirect: "manual", signal: ends.signal });
    if (answer.type === "opaqueredirect") throw new Error("it leads elsewhere, to a login perhaps: reload the page");
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    // A proxy that asks to log in, say.
    if (!page.querySelector("#heading") || !page.querySelector("main #taken")) throw new Error("it answered with another page");
    return page;
  } finally {
    clearTimeout(late);
  }
}

// What a person selects is not taken away.
function isSelected() {
  const selection = document.getSelection();
  return !selection.isCollapsed && [heading, shown].some((part) => selection.containsNode(part, true));
}

function isInUse() {
  return isPaused || document.hidden || isSelected();
}

// Fills a live region, which is read aloud when it changes.
function say(region, text) {
  if (region.textContent !== text) region.textContent = text;
  if (region === failure) region.hidden = text === "";
}

function sayWhatWaits() {
  let text = "";
  if (isPaused) text = "Paused.";
  else if (isSelected()) text = "Not refreshed while text is selected.";
  say(notice, text);
}

async function refresh() {
  try {
    const page = await read();
    // It may have been paused, or text selected, meanwhile.
    if (isInUse()) return;
    update(heading, page.getElementById("heading"));
    update(shown, page.querySelector("main"));
    say(failure, "");
  } catch (error) {
    if (isPaused) return;
    const taken = document.getElementById("taken").textContent;
    say(failure, `Not refreshed since ${taken}: ${error.message}`);
  }
}

async function tick() {
  if (!isInUse()) await refresh();
  sayWhatWaits();
  setTimeout(tick, EVERY);
}

pause.hidden = false;
pause.addEventListener("click", () => {
  isPaused = !isPaused;
  pause.setAttribute("aria-pressed", String(isPaused));
  if (isPaused) underWay.abort();
  sayWhatWaits();
});
setTimeout(tick, EVERY);
