// Several continuations side by side. The user chooses one with a click or a number key.

import { showNotice } from "./connection.js";
import { $, createElement } from "./dom.js";
import { onLanguageChange, translate } from "./language.js";

const CHOICE_COUNT = 3;

export class Choices {
  constructor(editor) {
    this.editor = editor;
    this.offer = null;
    this.list = $("choices");
    onLanguageChange(() => this.#updateTitles());
  }

  get isOpen() {
    return this.offer !== null;
  }

  /**
   * Show empty choices for the text from start to end in the state `base` of the draft, and return the offer.
   * abort: cancels the request that fills the choices.
   */
  open({ start, end, base }, abort) {
    this.dismiss();
    const { tree } = this.editor;
    const removed = tree.text.slice(start, end);
    const texts = Array(CHOICE_COUNT).fill("");
    this.offer = { start, end, base, tree, removed, abort, texts, count: CHOICE_COUNT };
    this.list.replaceChildren(...texts.map((_, i) => {
      const key = createElement("kbd", { text: `${i + 1}` });
      const button = createElement("button", { type: "button" }, key, createElement("span"));
      button.addEventListener("click", () => this.choose(i));
      return createElement("li", {}, button);
    }));
    this.list.hidden = false;
    this.#updateTitles();
    return this.offer;
  }

  update(offer, texts) {
    if (offer !== this.offer) return;
    offer.texts = texts;
    this.list.querySelectorAll("span").forEach((span, i) => {
      span.textContent = texts[i].replace(/^ /, "");
    });
  }

  /** Announce that the texts of an offer are complete. An offer without any text is closed. */
  finish(offer) {
    if (offer !== this.offer) return;
    if (offer.texts.some(Boolean)) showNotice("choices_ready");
    else this.dismiss();
    this.#saveAsBranches(offer);
  }

  choose(i) {
    const { offer, editor } = this;
    if (!offer?.texts[i]) return;
    this.#saveAsBranches(offer);
    this.#close();
    editor.replace(offer.start, offer.end, offer.texts[i], "written");
    editor.area.focus();
  }

  /** Hide the choices. Their texts stay in the draft as branches. */
  dismiss() {
    if (!this.offer) return;
    this.#saveAsBranches(this.offer);
    this.#close();
  }

  #close() {
    const { abort } = this.offer;
    this.offer = null;
    abort();
    this.list.hidden = true;
    this.list.replaceChildren();
    showNotice(null);
  }

  #saveAsBranches({ tree, start, removed, base, texts }) {
    for (const inserted of texts) if (inserted) tree.add({ at: start, removed, inserted }, "written", base);
    this.editor.dispatchEvent(new Event("change"));
  }

  #updateTitles() {
    this.list.querySelectorAll("button").forEach((button, i) => {
      button.title = translate("choose", { n: i + 1 });
    });
  }
}
