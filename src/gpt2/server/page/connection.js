// The notice line, and waiting for a server that does not respond.

import { $ } from "./dom.js";
import { onLanguageChange, translate } from "./language.js";

const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 5000;
const NOTICE_MS = 4000; // how long a temporary notice is shown

let current = null;
let hideTimer;
let recovery = null; // the promise shared by all requests that wait for the server

function update() {
  $("notice").textContent = current ? translate(current.name, current.values) : "";
  $("notice").dataset.kind = current?.name ?? "";
}

onLanguageChange(update);

/**
 * Show the text with this name, or clear the line if the name is null. A permanent notice stays until the next one.
 * A name that is not in the texts is shown as it is.
 */
export function showNotice(name, values = {}, isPermanent = false) {
  clearTimeout(hideTimer);
  current = name ? { name, values } : null;
  update();
  if (current && !isPermanent) hideTimer = setTimeout(showNotice, NOTICE_MS, null);
}

/** Show an error message until the next notice. */
export const showError = (message) => showNotice(message, {}, true);

/** Show that the server is not responding, and resolve when it responds again. */
export function waitForServer(signal) {
  signal?.throwIfAborted();
  recovery ??= pollServer().finally(() => { recovery = null; });
  return new Promise((resolve, reject) => {
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    recovery.then(resolve);
  });
}

async function pollServer() {
  showNotice("server_down", {}, true);
  for (let delay = FIRST_RETRY_MS; ; delay = Math.min(2 * delay, MAX_RETRY_MS)) {
    await sleep(delay);
    const response = await fetch("healthz", { cache: "no-store" }).catch(() => null);
    if (response?.ok) return showNotice("server_back");
  }
}

export function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    const cancel = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    signal?.addEventListener("abort", cancel, { once: true });
  });
}
