// Keeps an open page as the host is now, and helps with its forms. The page works without this.
//
// The server writes all HTML, here and in the page, and escapes what is not its own. What comes is
// laid over what is there, node by node, so that focus, selection and scrolling stay.
"use strict";

const content = document.getElementById("content");
const live = document.getElementById("live");
const guests = document.getElementById("guests");
const filter = document.getElementById("filter");
const LATE = 10; // seconds without a round after which the page says so

let at = null; // when the last round was seen, by this clock
let ended = ""; // what there is to say where no round brings anything new
let isRefreshing = false;

function element(html, parent) {
  const place = document.createElement(parent);
  place.innerHTML = html;
  return place.firstElementChild;
}

function lay(fresh, old) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const each of [...old.attributes]) {
    if (!fresh.hasAttribute(each.name) && each.name !== "hidden") old.removeAttribute(each.name);
  }
  for (const each of fresh.attributes) {
    if (old.getAttribute(each.name) !== each.value) old.setAttribute(each.name, each.value);
  }
  const news = [...fresh.childNodes];
  const olds = [...old.childNodes];
  news.forEach((node, place) => (place < olds.length ? lay(node, olds[place]) : old.append(node)));
  olds.slice(news.length).forEach((node) => node.remove());
}

function put(id, html) {
  const old = document.getElementById(id);
  if (old !== null) lay(element(html, id.startsWith("guest-") ? "tbody" : "div"), old);
  else if (guests !== null && id.startsWith("guest-")) guests.append(element(html, "tbody"));
}

function arrange(order) {
  if (guests === null) return;
  const known = new Set(order);
  for (const row of [...guests.children]) if (!known.has(row.id)) row.remove();
  order.forEach((id, place) => {
    const row = document.getElementById(id);
    if (row !== null && guests.children[place] !== row) {
      guests.insertBefore(row, guests.children[place] ?? null);
    }
  });
}

function sift() {
  if (filter === null || guests === null) return;
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of guests.children) {
    row.hidden = !words.every((word) => row.dataset.words.includes(word));
  }
}

// What is no part of every round is fetched again: why a guest has what it has, decisions, merging.
async function refresh() {
  const sections = [...document.querySelectorAll("section.follows")];
  if (isRefreshing || document.hidden || sections.length === 0) return;
  isRefreshing = true;
  try {
    const answer = await fetch(content.dataset.path);
    if (answer.status === 404) ended = "this guest has ended";
    if (!answer.ok) return;
    ended = "";
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const each of sections) {
      const found = fresh.getElementById(each.id);
      if (found !== null) lay(found, each);
    }
  } catch {
    // The server is away; the stream of rounds tells when it is back.
  } finally {
    isRefreshing = false;
  }
}

// Fetch a part of a plot: its drawing, or the values in it.
async function part(plot, name) {
  try {
    const answer = await fetch(`${plot.dataset.path}/${name}?${plot.dataset.query}`);
    return answer.ok ? await answer.text() : null;
  } catch {
    return null; // As above.
  }
}

// Helps with a plot: a cross with the values at the pointer or the arrow keys, and a part of the
// past that is drawn over by a mouse, or by + and -, is shown alone.
function explore(plot) {
  const reading = document.getElementById("reading");
  const cross = document.createElement("div");
  const chosen = document.createElement("div");
  cross.className = "cross";
  chosen.className = "chosen";
  let values = null; // what the plot shows, once it is looked at
  let isAsked = false;
  let pointer = null; // pixels from the left
  let time = null; // where the cross is
  let start = null; // where a mouse was pressed

  // The panels as they are on the screen: each has one frame, and the drawing of the other width
  // has none there.
  const frames = () =>
    [...plot.querySelectorAll(".frame")]
      .map((each) => each.getBoundingClientRect())
      .filter((each) => each.width > 0);

  function place(element, from, to) {
    const all = frames();
    if (all.length === 0 || values === null) return;
    const home = plot.parentElement.getBoundingClientRect();
    const across = (at) =>
      all[0].left - home.left + ((at - values.begin) / (values.end - values.begin)) * all[0].width;
    element.style.left = `${across(from)}px`;
    if (to !== undefined) element.style.width = `${across(to) - across(from)}px`;
    element.style.top = `${all[0].top - home.top}px`;
    element.style.height = `${all.at(-1).bottom - all[0].top}px`;
    plot.parentElement.append(element);
  }

  function rowAt(panel) {
    return panel.rows.find((row) => row[0] <= time && time < row[1]);
  }

  function read() {
    if (values === null || time === null) return;
    place(cross, time);
    const clock = document.createElement("b");
    const words = [];
    for (const panel of values.panels) {
      const row = rowAt(panel);
      if (row === undefined) continue;
      clock.textContent = row[2];
      panel.names.forEach((name, number) => {
        if (row[3][number] !== "-") words.push(`${name} ${row[3][number]}`);
      });
    }
    if (words.length) reading.replaceChildren(clock, ` · ${words.join(" · ")}`);
    else reading.textContent = "nothing is known of this time";
  }

  function leave() {
    pointer = null;
    time = null;
    start = null;
    cross.remove();
    chosen.remove();
    reading.textContent = "";
  }

  async function ask() {
    if (values !== null || isAsked) return;
    isAsked = true;
    const text = await part(plot, "values");
    isAsked = false;
    if (text !== null) values = JSON.parse(text);
    if (pointer !== null) time = timeAt(pointer);
    read();
  }

  function timeAt(x) {
    const frame = frames()[0];
    if (frame === undefined || values === null) return null;
    const share = Math.min(1, Math.max(0, (x - frame.left) / frame.width));
    return values.begin + share * (values.end - values.begin);
  }

  function show(from, to) {
    const least = 10; // seconds
    const middle = (from + to) / 2;
    const half = Math.max(least, to - from) / 2;
    const begin = Math.max(0, Math.round(middle - half));
    location.assign(`${plot.dataset.path}?from=${begin}&to=${Math.ceil(begin + 2 * half)}`);
  }

  plot.tabIndex = 0;
  plot.setAttribute("role", "group");
  plot.setAttribute("aria-label", "Plot: arrow keys read values, + and - change how much is shown");
  plot.addEventListener("pointermove", (event) => {
    ask();
    pointer = event.clientX;
    time = timeAt(pointer);
    read();
    if (start !== null && time !== null) place(chosen, Math.min(start, time), Math.max(start, time));
  });
  plot.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0) return;
    event.preventDefault();
    plot.focus({ preventScroll: true });
    plot.setPointerCapture(event.pointerId);
    start = timeAt(event.clientX);
  });
  plot.addEventListener("pointerup", (event) => {
    const end = timeAt(event.clientX);
    const from = start;
    start = null;
    chosen.remove();
    const frame = frames()[0];
    if (from === null || end === null || frame === undefined) return;
    const pixels = (Math.abs(end - from) / (values.end - values.begin)) * frame.width;
    if (pixels > 8) show(Math.min(from, end), Math.max(from, end));
  });
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.addEventListener("focus", ask);
  plot.addEventListener("keydown", (event) => {
    const rows = values === null ? [] : values.panels[0].rows;
    if (rows.length === 0) return;
    const now = rows.findIndex((row) => row[0] <= time && time < row[1]);
    const at = now < 0 ? rows.length - 1 : now;
    const next = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: rows.length - 1 }[event.key];
    const length = values.end - values.begin;
    if (next !== undefined) {
      const [begin, end] = rows[Math.min(rows.length - 1, Math.max(0, now < 0 ? at : next))];
      time = (begin + end) / 2;
      read();
    } else if (event.key === "+" || event.key === "-") {
      const middle = time ?? (values.begin + values.end) / 2;
      const half = event.key === "+" ? length / 4 : length;
      show(middle - half, middle + half);
    } else return;
    event.preventDefault();
  });

  // A plot is drawn anew where a new point can be seen in it.
  async function draw() {
    if (document.hidden || start !== null) return;
    const text = await part(plot, "plot");
    if (text === null) return;
    plot.innerHTML = text;
    values = null;
    if (time !== null) ask();
  }
  if (plot.dataset.every) setInterval(draw, 1000 * Number(plot.dataset.every));
}

function tell() {
  const age = at === null ? null : Math.round((Date.now() - at) / 1000);
  const isLost = age === null || age > LATE;
  live.classList.toggle("lost", isLost);
  if (age === null) live.textContent = "no round yet";
  else if (ended) live.textContent = ended;
  else live.textContent = isLost ? `last update ${age} s ago` : `live · ${age} s ago`;
}

function follow() {
  const query = new URLSearchParams(location.search);
  query.set("since", content.dataset.mark);
  const source = new EventSource(`/events?${query}`);
  source.addEventListener("round", (event) => {
    const news = JSON.parse(event.data);
    if (document.getElementById("tiles") === null && news.order.length && content.dataset.path === "/") {
      location.replace(`/${location.search}`); // the first round: the page was made before it
      return;
    }
    for (const [id, html] of Object.entries(news.parts)) put(id, html);
    arrange(news.order);
    const count = document.getElementById("count");
    if (count !== null && news.count) count.textContent = news.count;
    sift();
    at = news.age === null ? null : Date.now() - news.age * 1000;
    tell();
    refresh();
  });
  source.addEventListener("error", () => {
    // A browser gives up where the answer is no stream, as while the server has no place.
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 3000);
  });
}

function sized(bytes) {
  return bytes % 1024 === 0 ? `${bytes / 1024}G` : `${bytes}M`;
}

function help(form) {
  const slider = document.getElementById("slider");
  const field = document.getElementById("size");
  const says = document.getElementById("says");
  const pin = document.getElementById("pin");
  let waiting = 0;

  async function check() {
    const turn = ++waiting;
    const answer = await fetch(form.action, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams({ size: field.value }),
    });
    if (turn !== waiting) return;
    const told = answer.ok ? await answer.json() : { says: await answer.text(), ok: false };
    says.textContent = told.says;
    says.classList.toggle("old", !told.ok);
    pin.disabled = !told.ok;
  }

  let timer;
  function changed() {
    pin.disabled = true;
    waiting++;
    clearTimeout(timer);
    timer = setTimeout(check, 200);
  }

  document.getElementById("slide").hidden = false;
  document.getElementById("marks").classList.add("hidden");
  slider.addEventListener("input", () => {
    field.value = sized(Number(slider.value));
    changed();
  });
  field.addEventListener("input", () => {
    const match = /^\s*([0-9.]+)\s*([MG])(?:iB)?\s*$/i.exec(field.value);
    if (match) slider.value = Number(match[1]) * (match[2].toUpperCase() === "G" ? 1024 : 1);
    changed();
  });
}

follow();
tell();
setInterval(tell, 1000);
if (filter !== null) {
  filter.disabled = false;
  filter.addEventListener("input", sift);
}
const plot = document.getElementById("plot");
if (plot !== null) explore(plot);
const form = document.getElementById("change");
if (form !== null) help(form);

const file = document.getElementById("file");
if (file !== null) {
  file.disabled = false;
  file.addEventListener("change", async () => {
    document.getElementById("scenario").value = await file.files[0].text();
  });
}
