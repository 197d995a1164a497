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
    const answer = await fetch(location.pathname);
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

// A plot is drawn anew where a new point can be seen in it.
async function draw(plot) {
  if (document.hidden) return;
  try {
    const answer = await fetch(plot.dataset.from);
    if (answer.ok) plot.innerHTML = await answer.text();
  } catch {
    // As above.
  }
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
    if (document.getElementById("tiles") === null && news.order.length && location.pathname === "/") {
      location.reload(); // the first round: the page was made before it
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
    pin.disabled = !told.ok;
  }

  let timer;
  function changed() {
    pin.disabled = true;
    waiting++;
    clearTimeout(timer);
    timer = setTimeout(check, 200);
  }

  slider.hidden = false;
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
if (plot !== null) setInterval(draw, plot.dataset.from.endsWith("=10m") ? 15000 : 60000, plot);
const form = document.getElementById("change");
if (form !== null) help(form);

const file = document.getElementById("file");
if (file !== null) {
  file.disabled = false;
  file.addEventListener("change", async () => {
    document.getElementById("scenario").value = await file.files[0].text();
  });
}
