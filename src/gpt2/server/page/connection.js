// The notice line, and waiting for a server that does not respond.

import { $ } from "./dom.js";
import { onLanguageChange, translate } from "./language.js";

const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 5000;
const HEALTH_TIMEOUT_MS = 10_000;
const NOTICE_MS = 4000; // how long a temporary notice is shown

let notice = null;
let hideTimer;
let recovery = null; // the promise shared by all requests that wait for the server
const listeners = [];

function update() {
  const shown = notice ?? (recovery ? { name: "server_down" } : null);
  $("notice").textContent = shown ? translate(shown.name, shown.values) : "";
  $("notice").dataset.kind = shown?.name ?? "";
}

onLanguageChange(update);

/**
 * Show the text with this name, or clear the line if the name is null. A permanent notice stays until the next one.
 * A name that is not in the texts is shown as it is. While the server is down, the line returns to saying so.
 */
export function showNotice(name, values = {}, isPermanent = false) {
  clearTimeout(hideTimer);
  notice = name ? { name, values } : null;
  update();
  if (notice && !(isPermanent && !recovery)) hideTimer = setTimeout(showNotice, NOTICE_MS, null);
}

/** Show an error message until the next notice. */
export const showError = (message) => showNotice(message, {}, true);

export const isServerDown = () => recovery !== null;

/** Call the listener whenever the server stops responding and whenever it responds again. */
export function onConnectionChange(listener) {
  listeners.push(listener);
}

/** Show that the server is not responding, and resolve when it responds again. */
export function waitForServer(signal) {
  signal?.throwIfAborted();
  if (!recovery) setRecovery(pollServer());
  return new Promise((resolve, reject) => {
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    recovery.then(resolve);
  });
}

function setRecovery(promise) {
  recovery = promise;
  showNotice(promise ? null : "server_back");
  for (const listener of listeners) listener();
}

async function pollServer() {
  for (let delay = FIRST_RETRY_MS; ; delay = Math.min(2 * delay, MAX_RETRY_MS)) {
    await sleep(delay);
    if (await isServerAlive()) return setRecovery(null);
  }
}

/** Return whether the server answers its health check in time. */
export async function isServerAlive() {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), HEALTH_TIMEOUT_MS);
  const response = await fetch("healthz", { cache: "no-store", signal: controller.signal }).catch(() => null);
  clearTimeout(timer);
  return Boolean(response?.ok);
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
