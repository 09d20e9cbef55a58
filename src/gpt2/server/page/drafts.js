// Drafts, each with its tree of states: in the browser's storage, and as exported files.

import { showError, showNotice } from "./connection.js";
import { $, createElement, debounce } from "./dom.js";
import { onLanguageChange, translate } from "./language.js";
import { localStore } from "./storage.js";
import { Tree } from "./tree.js";

const SAVE_DELAY_MS = 400;
const MAX_TITLE_CHARACTERS = 40;

export class Drafts {
  constructor(editor) {
    this.editor = editor;
    this.name = null;
    this.savedTime = null; // the time of the stored version that this page has read or written last
    this.isChanged = false;
    this.savedJson = "";
    const saveSoon = debounce(SAVE_DELAY_MS, () => this.save());
    editor.addEventListener("change", () => {
      this.isChanged = true;
      saveSoon();
    });
    addEventListener("pagehide", () => {
      editor.finishSuggestion();
      this.save();
    });
    document.addEventListener("visibilitychange", () => document.hidden && this.save());
    $("drafts").addEventListener("change", (event) => this.open(event.target.value));
    $("new-draft").addEventListener("click", () => this.create(new Tree()));
    $("delete-draft").addEventListener("click", () => confirm(translate("confirm_delete")) && this.delete());
    $("export-text").addEventListener("click", () => download("txt", "text/plain", editor.text));
    $("export-json").addEventListener("click", () => this.export());
    $("import").addEventListener("click", () => $("import-file").click());
    $("import-file").addEventListener("change", (event) => this.import(event.target));
    onLanguageChange(() => this.#updateMenu());
  }

  /** Open the latest draft. If there is none, create one with a preset text. */
  start() {
    const [latest] = this.#readAll();
    if (latest && this.open(latest.name)) return;
    const tree = new Tree();
    tree.goTo(tree.add({ at: 0, removed: "", inserted: translate("preset") }, "begin"));
    this.create(tree);
  }

  /** Return all stored drafts, latest first. */
  #readAll() {
    const drafts = localStore.names("draft.").map((name) => ({ name, ...localStore.get(name) }));
    return drafts.filter(({ tree }) => tree).sort((a, b) => b.time - a.time);
  }

  create(tree) {
    this.editor.finishSuggestion(); // the part that has arrived belongs to the open draft
    this.save();
    this.name = `draft.${crypto.getRandomValues(new Uint32Array(2)).join("")}`;
    this.savedTime = null;
    this.savedJson = "";
    this.editor.open(tree);
    this.isChanged = true;
    this.save();
    this.editor.area.focus();
  }

  /** Open a stored draft. Returns false if it is missing or damaged. */
  open(name) {
    this.editor.finishSuggestion();
    this.save();
    const stored = localStore.get(name);
    try {
      this.editor.open(Tree.from(stored?.tree));
    } catch {
      return false;
    }
    this.name = name;
    this.savedTime = stored.time;
    this.isChanged = false;
    this.savedJson = this.#toJson();
    this.#updateMenu();
    return true;
  }

  delete() {
    localStore.remove(this.name);
    this.isChanged = false;
    this.start();
  }

  /** Store the changes. If another tab has stored this draft since, store a separate copy instead. */
  save() {
    if (!this.isChanged || !this.name) return;
    this.isChanged = false;
    const json = this.#toJson();
    if (json === this.savedJson) return; // only the cursor has moved
    const storedTime = localStore.get(this.name)?.time ?? null;
    if (storedTime !== this.savedTime) {
      this.name += "+";
      showNotice("changed_elsewhere");
    }
    this.savedTime = Math.max(Date.now(), (this.savedTime ?? 0) + 1);
    const title = this.editor.tree.text.trim().slice(0, MAX_TITLE_CHARACTERS);
    if (localStore.set(this.name, { time: this.savedTime, title, tree: this.editor.tree.stored })) {
      this.savedJson = json;
    } else {
      this.savedTime = storedTime;
      showNotice("draft_too_large", {}, true);
    }
    this.#updateMenu();
  }

  #toJson() {
    return JSON.stringify(this.editor.tree.stored);
  }

  #updateMenu() {
    const options = this.#readAll().map(({ name, title }) =>
      createElement("option", { value: name, text: title || translate("untitled") }));
    $("drafts").replaceChildren(...options);
    $("drafts").value = this.name;
  }

  export() {
    this.editor.finishSuggestion();
    download("json", "application/json", JSON.stringify(this.editor.tree.stored, null, 1));
  }

  async import(input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    try {
      this.create(Tree.from(JSON.parse(await file.text())));
    } catch {
      showError(translate("import_wrong", { name: file.name }));
    }
  }
}

function download(extension, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  createElement("a", { href: url, download: `gpt-2.${extension}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
