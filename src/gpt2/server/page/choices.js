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
    this.actions = $("choice-actions");
    editor.addEventListener("change", () => this.#closeIfOutdated());
    editor.area.addEventListener("beforeinput", () => this.dismiss()); // before the input extends the state they follow
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
    this.actions.hidden = false;
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

  /** Announce that the texts of an offer are complete, unless an error ended it. Close an offer without any text. */
  finish(offer, isComplete = true) {
    if (offer !== this.offer) return;
    if (!offer.texts.some(Boolean)) return this.dismiss();
    if (isComplete) showNotice("choices_ready");
    this.#saveAsBranches(offer);
  }

  /** Tell the user how to choose, instead of offering other choices. */
  remind() {
    showNotice("choose_first");
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
    const { offer } = this;
    if (!offer) return;
    this.#close();
    this.#saveAsBranches(offer);
  }

  #close() {
    const { abort } = this.offer;
    this.offer = null;
    abort();
    this.list.hidden = true;
    this.actions.hidden = true;
    this.list.replaceChildren();
    showNotice(null);
  }

  /** Close the choices if the text has changed, because they continue another text. */
  #closeIfOutdated() {
    const { offer, editor } = this;
    if (offer && (editor.tree !== offer.tree || editor.tree.current !== offer.base)) this.dismiss();
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
