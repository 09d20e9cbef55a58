// Several continuations beside each other, to choose one by a click or a key.

import { $, make } from "./dom.js";
import { onLanguage, say } from "./language.js";
import { notice } from "./connection.js";

const COUNT = 3;

export class Choices {
  constructor(editor) {
    this.editor = editor;
    this.offered = null;
    this.list = $("choices");
    onLanguage(() => this.#label());
  }

  get isOpen() {
    return this.offered !== null;
  }

  /** Empty places for continuations of the text at {start, end, base}. stop: ends their asking. */
  begin(place, stop) {
    this.dismiss();
    const { tree } = this.editor;
    const removed = tree.text.slice(place.start, place.end);
    this.offered = { ...place, tree, removed, stop, texts: Array(COUNT).fill(""), count: COUNT };
    this.list.replaceChildren(...this.offered.texts.map((_, i) => {
      const button = make("button", { type: "button" }, make("kbd", { text: `${i + 1}` }), make("span"));
      button.addEventListener("click", () => this.choose(i));
      return make("li", {}, button);
    }));
    this.list.hidden = false;
    this.#label();
    return this.offered;
  }

  show(offered, texts) {
    if (offered !== this.offered) return;
    offered.texts = texts;
    this.list.querySelectorAll("span").forEach((span, i) => { span.textContent = texts[i].replace(/^ /, ""); });
  }

  /** All have come, or no more do. */
  ended(offered) {
    if (offered !== this.offered) return;
    if (offered.texts.some(Boolean)) notice("choices_ready");
    else this.dismiss();
    this.#remember(offered);
  }

  choose(i) {
    const { offered, editor } = this;
    if (!offered?.texts[i]) return;
    this.#remember(offered);
    this.#close();
    editor.replace(offered.start, offered.end, offered.texts[i], "written");
    editor.area.focus();
  }

  /** Puts them away; they stay as branches. */
  dismiss() {
    if (!this.offered) return;
    this.#remember(this.offered);
    this.#close();
  }

  #close() {
    const { stop } = this.offered;
    this.offered = null;
    stop();
    this.list.hidden = true;
    this.list.replaceChildren();
    notice(null);
  }

  #remember({ tree, start, removed, base, texts }) {
    for (const inserted of texts) if (inserted) tree.add({ at: start, removed, inserted }, "written", base);
    this.editor.dispatchEvent(new Event("change"));
  }

  #label() {
    this.list.querySelectorAll("button").forEach((button, i) => { button.title = say("choose", { n: i + 1 }); });
  }
}
