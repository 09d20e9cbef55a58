// To understand: tokens, attention, what each layer would say, and how a token is chosen, of the text at hand.

import { layers } from "./api.js";
import { Asked } from "./latest_request.js";
import { AttentionCard } from "./attention.js";
import { $, make, roving } from "./dom.js";
import { onLanguage, say } from "./language.js";
import { lens } from "./logit_lens.js";
import { ShapeCard } from "./sampling.js";
import { visible } from "./format.js";

export class Inside {
  /** model: what is known of the chosen one. */
  constructor(editor, model) {
    Object.assign(this, { editor, asked: new Asked(model, layers, "inside-note"), at: 0 });
    this.attention = new AttentionCard((at) => this.choose(at));
    this.shape = new ShapeCard();
    roving($("chips"));
    $("chips").addEventListener("click", ({ target }) => this.choose(Number(target.closest("button")?.dataset.at ?? this.at)));
    $("chips").addEventListener("focusin", ({ target }) => this.choose(Number(target.dataset.at)));
    onLanguage(() => this.#show());
  }

  async refresh() {
    const { text } = this.editor;
    if (text === this.asked.text) return;
    $("inside-cards").hidden = true;
    if (!text) {
      this.asked.forget();
      $("inside-note").textContent = say("nothing");
    }
    if (!text || !await this.asked.about(text, say("computing"))) return;
    this.at = this.asked.found.tokens.length - 1;
    this.#show();
  }

  #show() {
    const { found, text } = this.asked;
    if (!found || text === null) return;
    $("inside-note").textContent = found.skipped ? say("inside_skipped", { seen: found.tokens.length }) : "";
    $("inside-cards").hidden = false;
    $("chips").replaceChildren(...found.tokens.map(({ id, piece }, i) =>
      make("button", { type: "button", "data-at": i, tabindex: i === this.at ? 0 : -1 }, make("code", { text: visible(piece) }), make("small", { text: id }))));
    this.attention.open(found);
    this.shape.open(found);
    this.choose(this.at);
  }

  /** Which of the tokens all panels speak of. */
  choose(at) {
    this.at = at;
    $("chips").querySelectorAll("button").forEach((button, i) => {
      button.setAttribute("aria-pressed", i === at);
      button.tabIndex = i === at ? 0 : -1;
    });
    this.attention.choose(at);
    lens(this.asked.found, at);
  }
}
