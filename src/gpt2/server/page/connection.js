// One quiet line: what is wrong between the page and its server, until it is right again.

import { $ } from "./dom.js";
import { onLanguage, say } from "./language.js";

const AGAIN = { first: 500, most: 5000 }; // milliseconds from one question to the next
const SHOWN = 4000; // of what passes by itself

let current = null;
let hiding;
let returning = null;

function show() {
  $("notice").textContent = current ? say(current.name, current.values) : "";
  $("notice").dataset.kind = current?.name ?? "";
}

onLanguage(show);

/** Says it; for a while, or until something else is said. An error of the server stands as it is. */
export function notice(name, values = {}, stays = false) {
  clearTimeout(hiding);
  current = name ? { name, values } : null;
  show();
  if (current && !stays) hiding = setTimeout(notice, SHOWN, null);
}

/** What the server refused, in its own words. */
export const refusal = (message) => notice(message, {}, true);

/** Once the page was told that nobody answers: resolves when somebody does. */
export function back(signal) {
  signal?.throwIfAborted();
  returning ??= waiting().finally(() => { returning = null; });
  return new Promise((resolve, reject) => {
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    returning.then(resolve);
  });
}

async function waiting() {
  notice("down", {}, true);
  for (let pause = AGAIN.first; ; pause = Math.min(2 * pause, AGAIN.most)) {
    await sleep(pause);
    const answer = await fetch("healthz", { cache: "no-store" }).catch(() => null);
    if (answer?.ok) return notice("back");
  }
}

export function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}
