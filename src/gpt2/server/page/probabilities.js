// The view "Probabilities": each token of the text colored by its surprisal, and the most likely next tokens.

import { fetchScores } from "./api.js";
import { showTokenBars } from "./bars.js";
import { $, addRovingFocus, createElement, keepInView } from "./dom.js";
import { formatPercent, visibleText } from "./format.js";
import { formatNumber, onLanguageChange, translate } from "./language.js";
import { LatestRequest } from "./latest_request.js";
import { settings } from "./settings.js";
import { tokenSpans } from "./token_spans.js";

const PARTIAL_CHARACTER = "▫"; // stands for a token that is only part of a character
const SHADE_BOUNDS = [0.5, 0.1, 0.01, 0.001]; // the lowest probability of each shade
const SHADES = [0, 1, 2, 3, 4, "none"];

/** Return the shade of a token: 0 (expected) to 4 (very surprising), or "none" without a probability. */
function shadeOf(logprob) {
  if (logprob === null) return "none";
  const index = SHADE_BOUNDS.findIndex((bound) => Math.exp(logprob) >= bound);
  return index < 0 ? SHADE_BOUNDS.length : index;
}

export class ProbabilitiesView {
  /** getModel: returns the description of the selected model. */
  constructor(editor, getModel) {
    this.editor = editor;
    this.getModel = getModel;
    this.request = new LatestRequest(getModel, fetchScores, "probabilities-note", "computing_probabilities");
    this.spans = [];
    this.selected = -1; // the index of the token whose details are shown
    const container = $("tokens");
    addRovingFocus(container);
    this.showSelectedToken = keepInView(container, () => container.querySelector(`[data-index="${this.#mainIndex}"]`));
    for (const event of ["focusin", "pointerover", "click"]) {
      container.addEventListener(event, ({ target }) => this.#select(target));
    }
    onLanguageChange(() => {
      this.#showLegend();
      this.#show();
    });
  }

  /** Compute the probabilities of the current text, unless they are known already. */
  async refresh() {
    const { text } = this.editor;
    if (text === this.request.text) return;
    if (!await this.request.run(text)) return;
    this.spans = tokenSpans(text, this.request.result.tokens);
    this.selected = -1;
    this.#show();
  }

  #showLegend() {
    $("legend").replaceChildren(...SHADES.map((shade) => {
      const sample = createElement("span", { class: "shade", "data-shade": shade, text: "a", "aria-hidden": "true" });
      return createElement("li", {}, sample, createElement("span", { text: translate(`legend_${shade}`) }));
    }));
  }

  #show() {
    const { result, text } = this.request;
    if (!result || text === null) return;
    const unscored = text.slice(0, this.spans[0]?.[0] ?? 0);
    $("probabilities-note").textContent = this.#note(unscored);
    const buttons = result.tokens.map((token, i) => this.#tokenButton(token, i));
    $("tokens").replaceChildren(createElement("span", { class: "unscored", text: unscored }), ...buttons);
    const append = (token) => this.#replaceEnd(result, text.length, token);
    showTokenBars($("next-tokens"), result.next, append, "append_token");
    this.#showDetail();
    this.showSelectedToken();
  }

  /** The index of the selected token, or of the last one: the next tokens follow it. */
  get #mainIndex() {
    return this.selected < 0 ? this.request.result?.tokens.length - 1 : this.selected;
  }

  #note(unscored) {
    const { result, text } = this.request;
    if (unscored.trim()) return translate("probabilities_truncated", { n: result.tokens.length });
    return text ? "" : translate("no_text");
  }

  #tokenButton(token, i) {
    const [start, end] = this.spans[i];
    const tokenText = this.request.text.slice(start, end);
    const share = token.logprob === null ? "–" : formatPercent(Math.exp(token.logprob), settings.language);
    const button = createElement("button", {
      type: "button",
      class: "shade",
      "data-shade": shadeOf(token.logprob),
      "data-index": i,
      tabindex: i === this.#mainIndex ? 0 : -1,
      "aria-label": translate("token_label", { piece: visibleText(token.piece), rank: token.rank ?? "–", share }),
    });
    const isBlank = tokenText.trim() === "";
    if (!isBlank) {
      button.textContent = tokenText.replaceAll("\n", "↵\n");
      return button;
    }
    button.classList.add("blank"); // white space alone would be invisible
    button.textContent = tokenText === "" ? PARTIAL_CHARACTER : visibleText(tokenText);
    return tokenText.includes("\n") ? withLineBreaks(button, tokenText) : button;
  }

  #select(target) {
    const index = target.dataset?.index;
    if (!this.request.result || index === undefined || Number(index) === this.selected) return;
    this.selected = Number(index);
    this.#showDetail();
  }

  #showDetail() {
    const { result, text } = this.request;
    const token = result.tokens[this.selected];
    $("detail").hidden = !token;
    for (const button of $("tokens").querySelectorAll("[data-index]")) {
      button.classList.toggle("selected", Number(button.dataset.index) === this.selected);
    }
    if (!token) return;
    const piece = visibleText(token.piece);
    $("detail-heading").textContent = translate("detail_heading", { n: this.selected + 1, piece });
    $("detail-text").textContent = this.#describe(token);
    const [start] = this.spans[this.selected];
    const branch = (alternative) => this.#replaceEnd(result, start, alternative);
    showTokenBars($("alternatives"), token.likeliest, branch, "branch_to");
  }

  #describe({ rank, logprob }) {
    if (!rank && logprob === null) return translate("detail_first");
    const values = logprob === null ? {} : {
      rank,
      all: this.getModel().n_vocab.toLocaleString(settings.language),
      share: formatPercent(Math.exp(logprob), settings.language),
      bits: formatNumber(-logprob / Math.LN2),
    };
    return translate("detail_text", values);
  }

  /** Replace the text from `start` to its end with a token, unless the page has requested a newer result since. */
  #replaceEnd(result, start, token) {
    if (result !== this.request.result) return;
    this.editor.replace(start, this.request.text.length, token.text);
  }
}

/** Return a token's button with the line breaks of its text after it. */
function withLineBreaks(button, tokenText) {
  const fragment = document.createDocumentFragment();
  const lineBreaks = [...tokenText].filter((character) => character === "\n").map(() => createElement("br"));
  fragment.append(button, ...lineBreaks);
  return fragment;
}
