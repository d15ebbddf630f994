// Makes the inbox live and keyboard-friendly. Everything works without it: links, forms, and a refresh by meta tag.
"use strict";

const list = document.getElementById("list");

async function look() {
  if (!list || document.hidden) return;
  const stats = await (await fetch("/api/stats")).json();
  const state = `${stats.taken} ${stats.mails} ${stats.unread}`;
  if (list.dataset.state === undefined) list.dataset.state = `${list.dataset.taken} ${stats.mails} ${stats.unread}`;
  if (state === list.dataset.state) return;
  const { query, before, open } = list.dataset;
  const wanted = new URLSearchParams({ q: query, open, ...(before && { before }) });
  const answer = await fetch(`/list?${wanted}`);
  if (!answer.ok) return;
  const focused = document.activeElement.closest?.("#list .row")?.getAttribute("href");
  list.innerHTML = await answer.text();
  if (focused) list.querySelector(`.row[href="${CSS.escape(focused)}"]`)?.focus();
  list.dataset.state = state;
  const unread = stats.unread ? `, ${stats.unread} unread` : "";
  document.getElementById("counts").textContent = `${stats.mails} mail${stats.mails === 1 ? "" : "s"}${unread}`;
}

async function keepLooking() {
  try {
    await look();
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

if (list) {
  document.querySelector('.row[aria-current="true"]')?.scrollIntoView({ block: "nearest" });
  keepLooking();
}
