// Drafts, each with its tree, kept in the browser; and as files.

import { notice, refusal } from "./connection.js";
import { $, after, make } from "./dom.js";
import { onLanguage, say } from "./language.js";
import { local } from "./storage.js";
import { Tree } from "./tree.js";

const SOON = 400; // milliseconds from a change until it is kept
const TITLE = 40; // characters

export class Drafts {
  constructor(editor) {
    this.editor = editor;
    this.name = null;
    this.written = null; // what is in the store under this name, as far as this page knows
    this.changed = false;
    this.kept = ""; // the tree, as it was written last
    const soon = after(SOON, () => this.keep());
    editor.addEventListener("change", () => { this.changed = true; soon(); });
    addEventListener("pagehide", () => this.keep());
    document.addEventListener("visibilitychange", () => document.hidden && this.keep());
    $("drafts").addEventListener("change", (event) => this.open(event.target.value));
    $("new-draft").addEventListener("click", () => this.begin(new Tree()));
    $("delete-draft").addEventListener("click", () => confirm(say("delete_sure")) && this.remove());
    $("export-text").addEventListener("click", () => save("txt", "text/plain", editor.text));
    $("export-json").addEventListener("click", () => this.export());
    $("import").addEventListener("click", () => $("import-file").click());
    $("import-file").addEventListener("change", (event) => this.import(event.target));
    onLanguage(() => this.list());
  }

  /** The one that was open last, or a first one with the words of the language. */
  start() {
    const [latest] = this.all();
    if (latest && this.open(latest.name)) return;
    const tree = new Tree();
    tree.go(tree.add({ at: 0, removed: "", inserted: say("preset") }, "begin"));
    this.begin(tree);
  }

  /** The names of all of them, the latest first. */
  all() {
    const found = local.names("draft.").map((name) => ({ name, ...local.get(name) }));
    return found.filter(({ tree }) => tree).sort((a, b) => b.time - a.time);
  }

  begin(tree) {
    this.keep();
    this.name = `draft.${crypto.getRandomValues(new Uint32Array(2)).join("")}`;
    [this.written, this.kept] = [null, ""];
    this.editor.open(tree);
    this.changed = true;
    this.keep();
    this.editor.area.focus();
  }

  /** Whether it could be. */
  open(name) {
    this.keep();
    const stored = local.get(name);
    try {
      this.editor.open(Tree.from(stored?.tree));
    } catch {
      return false;
    }
    [this.name, this.written, this.changed, this.kept] = [name, stored.time, false, this.#json()];
    this.list();
    return true;
  }

  remove() {
    local.remove(this.name);
    this.changed = false;
    this.start();
  }

  /** Writes what has changed, unless another tab has written there since: then this is a draft of its own. */
  keep() {
    if (!this.changed || !this.name) return;
    this.changed = false;
    const json = this.#json();
    if (json === this.kept) return; // a cursor that moved
    const there = local.get(this.name)?.time ?? null;
    if (there !== this.written) {
      this.name += "+";
      notice("elsewhere");
    }
    this.written = Math.max(Date.now(), (this.written ?? 0) + 1);
    const title = this.editor.tree.text.trim().slice(0, TITLE);
    if (!local.set(this.name, { time: this.written, title, tree: this.editor.tree.stored })) {
      this.written = there;
      notice("not_kept", {}, true);
    } else this.kept = json;
    this.list();
  }

  #json() {
    return JSON.stringify(this.editor.tree.stored);
  }

  list() {
    const options = this.all().map(({ name, title }) => make("option", { value: name, text: title || say("untitled") }));
    $("drafts").replaceChildren(...options);
    $("drafts").value = this.name;
  }

  export() {
    this.editor.stop();
    save("json", "application/json", JSON.stringify(this.editor.tree.stored, null, 1));
  }

  async import(input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    try {
      this.begin(Tree.from(JSON.parse(await file.text())));
    } catch {
      refusal(say("import_wrong", { name: file.name }));
    }
  }
}

function save(ending, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: url, download: `gpt-2.${ending}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
