// The server's key, where it asks for one: kept for the tab.

import { $ } from "./dom.js";
import { say } from "./language.js";
import { session } from "./storage.js";

let asking = null;

/** What a request carries. */
export function authorization() {
  const key = session.get("key");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Asks for the key, of however many requests once. used: the header of the request that was refused. */
export function askForKey(used) {
  if (used !== authorization().Authorization) return Promise.resolve(); // another one has been given since
  asking ??= asked(used !== undefined).finally(() => { asking = null; });
  return asking;
}

function asked(isWrong) {
  const dialog = $("key-dialog");
  session.remove("key");
  $("key-wrong").textContent = isWrong ? say("key_wrong") : "";
  $("key").value = "";
  return new Promise((resolve) => {
    const open = () => { dialog.returnValue = ""; dialog.showModal(); };
    dialog.onclose = () => {
      if (dialog.returnValue !== "use") return open(); // nothing works without it
      session.set("key", $("key").value);
      resolve();
    };
    open();
  });
}
