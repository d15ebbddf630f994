// Makes the pages live and keyboard-friendly. Everything works without it: links, forms, and a refresh by meta tag.
"use strict";

let known;

// The page says where its changing parts are to be had; each has an id, and takes its twin's place.
async function look() {
  const stats = await (await fetch("/api/stats")).text();
  if (stats === known) return;
  const answer = await fetch(document.body.dataset.look);
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").body;
  const active = document.activeElement;
  const place = active.closest("[id]")?.id;
  for (const part of [...fresh.children]) {
    const old = document.getElementById(part.id);
    if (old && !old.isEqualNode(part)) merge(old, part);
  }
  if (place && !active.isConnected) document.getElementById(place)?.querySelector("a, summary")?.focus();
  known = stats;
}

// What has not changed stays as it is: its focus, what is unfolded, and what a screen reader has read already.
function merge(old, fresh) {
  if (!fresh.querySelector("[id]")) {
    old.replaceChildren(...fresh.childNodes);
    return;
  }
  const here = new Map([...old.children].map((child) => [child.id, child]));
  const wanted = [...fresh.children].map((child) => {
    const twin = child.id && here.get(child.id);
    if (!twin || twin.isEqualNode(child)) return twin || child;
    if (child.tagName !== "OL") return child;
    merge(twin, child);
    return twin;
  });
  for (const child of [...old.children]) if (!wanted.includes(child)) child.remove();
  wanted.forEach((child, at) => {
    if (old.children[at] !== child) old.insertBefore(child, old.children[at] ?? null);
  });
}

async function keepLooking() {
  try {
    if (!document.hidden) await look();
  } catch {
    // The sandbox is being restarted: look again.
  }
  setTimeout(keepLooking, 1500);
}

function step(by) {
  const rows = [...document.querySelectorAll(".row")];
  const here = rows.findIndex((row) => row === document.activeElement || row.getAttribute("aria-current"));
  const next = rows[here < 0 ? 0 : Math.min(Math.max(here + by, 0), rows.length - 1)];
  if (!next) return;
  if (document.body.classList.contains("opened")) next.click();
  else next.focus();
}

const keys = {
  j: () => step(1),
  k: () => step(-1),
  u: () => document.querySelector(".back")?.click(),
  "/": () => document.getElementById("q")?.focus(),
  1: () => document.querySelectorAll(".tabs > *")[0]?.click(),
  2: () => document.querySelectorAll(".tabs > *")[1]?.click(),
  3: () => document.querySelectorAll(".tabs > *")[2]?.click(),
  4: () => document.querySelectorAll(".tabs > *")[3]?.click(),
};

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const action = keys[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

document.querySelector('.row[aria-current="true"]')?.scrollIntoView({ block: "nearest" });
if (document.body.dataset.look) keepLooking();
