// The API key of the server, if it requires one. The key is stored for this tab only.

import { $ } from "./dom.js";
import { translate } from "./language.js";
import { sessionStore } from "./storage.js";

let pendingDialog = null;

/** Return the headers that authorize a request. */
export function authorizationHeader() {
  const key = sessionStore.get("key");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/**
 * Ask the user for the key. Requests that fail at the same time share one dialog.
 * rejectedHeader: the Authorization header of the rejected request.
 */
export function requestKey(rejectedHeader) {
  const isOutdated = rejectedHeader !== authorizationHeader().Authorization; // the user has entered another key since
  if (isOutdated) return Promise.resolve();
  pendingDialog ??= showDialog(rejectedHeader !== undefined).finally(() => { pendingDialog = null; });
  return pendingDialog;
}

function showDialog(isKeyWrong) {
  const dialog = $("key-dialog");
  sessionStore.remove("key");
  $("key-wrong").textContent = isKeyWrong ? translate("key_wrong") : "";
  $("key").value = "";
  return new Promise((resolve) => {
    const open = () => {
      dialog.returnValue = "";
      dialog.showModal();
    };
    dialog.onclose = () => {
      if (dialog.returnValue !== "use") return open(); // the page does not work without the key
      sessionStore.set("key", $("key").value);
      resolve();
    };
    open();
  });
}
