// To look: each token of the text coloured by how surprising it was, and what may come next.

import { scores } from "./api.js";
import { Asked } from "./latest_request.js";
import { bars } from "./bars.js";
import { $, make, roving } from "./dom.js";
import { number, onLanguage, say } from "./language.js";
import { places } from "./token_spans.js";
import { settings } from "./settings.js";
import { percent, visible } from "./format.js";

const HALF = "▫"; // a token that is less than a character
const BOUNDS = [0.5, 0.1, 0.01, 0.001]; // of the probabilities of the shades

/** 0 for what was expected to 4 for what was not; null for what has no probability. */
export const shade = (logprob) => {
  if (logprob === null) return null;
  const at = BOUNDS.findIndex((bound) => Math.exp(logprob) >= bound);
  return at < 0 ? BOUNDS.length : at;
};

export class Look {
  /** model: what is known of the chosen one. */
  constructor(editor, model) {
    Object.assign(this, { editor, model, asked: new Asked(model, scores, "look-note"), pinned: -1 });
    const tokens = $("tokens");
    roving(tokens);
    for (const event of ["focusin", "pointerover"]) tokens.addEventListener(event, ({ target }) => this.#point(target));
    tokens.addEventListener("click", ({ target }) => this.#point(target));
    onLanguage(() => { this.#legend(); this.#show(); });
  }

  /** Asks how surprising the text is, unless that is known. */
  async refresh() {
    const { text } = this.editor;
    if (text === this.asked.text || !await this.asked.about(text, say("looking"))) return;
    [this.places, this.pinned] = [places(text, this.asked.found.tokens), -1];
    this.#show();
  }

  #legend() {
    const shades = [0, 1, 2, 3, 4, "none"];
    $("legend").replaceChildren(...shades.map((each) =>
      make("li", {}, make("span", { class: "shade", "data-shade": each, text: "a" , "aria-hidden": "true" }), make("span", { text: say(`legend_${each}`) }))));
  }

  #show() {
    const { found, text } = this.asked;
    if (!found || text === null) return;
    const before = text.slice(0, this.places[0]?.[0] ?? 0);
    $("look-note").textContent = before.trim() ? say("skipped", { seen: found.tokens.length }) : text ? "" : say("nothing");
    $("tokens").replaceChildren(make("span", { class: "unscored", text: before }), ...found.tokens.map((token, i) => this.#token(token, i)));
    bars($("next"), found.next, (token) => this.#take(found, text.length, text.length, token), "take");
    this.#detail();
  }

  #token(token, i) {
    const [start, end] = this.places[i];
    const written = this.asked.text.slice(start, end);
    const share = token.logprob === null ? "–" : percent(Math.exp(token.logprob), settings.language);
    const said = say("token_said", { piece: visible(token.piece), rank: token.rank ?? "–", share });
    const button = make("button", { type: "button", class: "shade", "data-shade": shade(token.logprob) ?? "none", "data-at": i, tabindex: i ? -1 : 0, "aria-label": said });
    // White space alone would be nothing to see; a line's end is shown and ends the line too.
    const isBlank = written.trim() === "";
    button.textContent = isBlank ? (written === "" ? HALF : visible(written)) : written.replaceAll("\n", "↵\n");
    if (isBlank) button.classList.add("blank");
    return isBlank && written.includes("\n") ? lineEnd(button, written) : button;
  }

  #point(target) {
    const at = target.dataset?.at;
    if (!this.asked.found || at === undefined || Number(at) === this.pinned) return;
    this.pinned = Number(at);
    this.#detail();
  }

  #detail() {
    const { found, text } = this.asked;
    const token = found.tokens[this.pinned];
    $("detail").hidden = !token;
    for (const button of $("tokens").querySelectorAll("[data-at]")) {
      button.classList.toggle("chosen", Number(button.dataset.at) === this.pinned);
    }
    if (!token) return;
    $("detail-heading").textContent = say("detail", { n: this.pinned + 1, piece: visible(token.piece) });
    $("detail-said").textContent = token.logprob === null ? say(token.rank ? "detail_said" : "detail_first") : say("detail_said", {
      rank: token.rank, all: this.model().n_vocab.toLocaleString(settings.language),
      share: percent(Math.exp(token.logprob), settings.language), bits: number(-token.logprob / Math.LN2) });
    const [start] = this.places[this.pinned];
    bars($("alternatives"), token.likeliest, (other) => this.#take(found, start, text.length, other), "branch_to");
  }

  /** The text ends with this token from here on; unless another text has been asked about since it was offered. */
  #take(found, start, end, token) {
    if (found !== this.asked.found) return;
    this.editor.replace(start, end, token.text);
    $("tokens").scrollTop = $("tokens").scrollHeight;
  }
}

function lineEnd(button, written) {
  const both = document.createDocumentFragment();
  both.append(button, ...[...written].filter((sign) => sign === "\n").map(() => make("br")));
  return both;
}
