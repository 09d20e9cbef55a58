// The view "How it works": the tokens of the text, attention, the logit lens and sampling.

import { fetchLayers } from "./api.js";
import { AttentionCard } from "./attention.js";
import { $, addRovingFocus, createElement, keepInView } from "./dom.js";
import { visibleText } from "./format.js";
import { onLanguageChange, translate } from "./language.js";
import { LatestRequest } from "./latest_request.js";
import { showLogitLens } from "./logit_lens.js";
import { SamplingCard } from "./sampling.js";

export class IntrospectionView {
  /** getModel: returns the description of the selected model. */
  constructor(editor, getModel) {
    this.editor = editor;
    this.request = new LatestRequest(getModel, fetchLayers, "introspection-note", "computing_layers");
    this.tokenIndex = 0;
    this.attention = new AttentionCard((index) => this.select(index));
    this.sampling = new SamplingCard();
    const chips = $("chips");
    addRovingFocus(chips);
    this.showSelectedChip = keepInView(chips, () => chips.children[this.tokenIndex]);
    for (const event of ["click", "focusin"]) {
      chips.addEventListener(event, ({ target }) => {
        const index = target.closest("button")?.dataset.index; // undefined between the tokens
        if (index !== undefined) this.select(Number(index));
      });
    }
    onLanguageChange(() => this.#show());
  }

  /** Compute the layers of the current text, unless they are known already. */
  async refresh() {
    const { text } = this.editor;
    if (text === this.request.text) return;
    $("introspection-cards").hidden = true;
    if (!text) {
      this.request.reset();
      $("introspection-note").textContent = translate("no_text");
      return;
    }
    if (!await this.request.run(text)) return;
    this.tokenIndex = this.request.result.tokens.length - 1;
    this.#show();
  }

  #show() {
    const { result, text } = this.request;
    if (!result || text === null) return;
    $("introspection-note").textContent = result.skipped
      ? translate("introspection_truncated", { n: result.tokens.length })
      : "";
    $("introspection-cards").hidden = false;
    $("chips").replaceChildren(...result.tokens.map(({ id, piece }, i) => {
      const attributes = { type: "button", "data-index": i, tabindex: i === this.tokenIndex ? 0 : -1 };
      const label = createElement("code", { text: visibleText(piece) });
      return createElement("button", attributes, label, createElement("small", { text: id }));
    }));
    this.attention.open(result);
    this.sampling.open(result);
    this.select(this.tokenIndex);
  }

  /** Select the token that all panels describe. */
  select(index) {
    this.tokenIndex = index;
    $("chips").querySelectorAll("button").forEach((button, i) => {
      button.setAttribute("aria-pressed", i === index);
      button.tabIndex = i === index ? 0 : -1;
    });
    this.showSelectedChip();
    this.attention.select(index);
    showLogitLens(this.request.result, index);
  }
}
