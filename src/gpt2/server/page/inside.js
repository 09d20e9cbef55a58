// To understand: tokens, attention, what each layer would say, and how a token is chosen, of the text at hand.

import { layers } from "./api.js";
import { told } from "./autopilot.js";
import { AttentionCard } from "./attention.js";
import { lastPart } from "./context.js";
import { $, make, roving } from "./dom.js";
import { onLanguage, say } from "./language.js";
import { lens } from "./lens.js";
import { ShapeCard } from "./shape.js";
import { visible } from "./visible.js";

export class Inside {
  /** model: what is known of the chosen one. */
  constructor(editor, model) {
    Object.assign(this, { editor, model, text: null, found: null, at: 0, asking: new AbortController() });
    this.attention = new AttentionCard((at) => this.choose(at));
    this.shape = new ShapeCard();
    roving($("chips"));
    $("chips").addEventListener("click", ({ target }) => this.choose(Number(target.closest("button")?.dataset.at ?? this.at)));
    $("chips").addEventListener("focusin", ({ target }) => this.choose(Number(target.dataset.at)));
    onLanguage(() => this.#show());
  }

  async refresh() {
    const { text } = this.editor;
    if (text === this.text) return;
    this.asking.abort();
    const asking = this.asking = new AbortController();
    this.text = text;
    $("inside-cards").hidden = true;
    $("inside-note").textContent = say(text ? "computing" : "nothing");
    if (!text) return;
    try {
      const found = await layers(lastPart(text, this.model().n_ctx), asking.signal);
      if (asking.signal.aborted) return;
      [this.found, this.at] = [found, found.tokens.length - 1];
      this.#show();
    } catch (error) {
      if (this.text === text) this.text = null;
      $("inside-note").textContent = "";
      told(error, asking.signal);
    }
  }

  forget() {
    [this.text, this.found] = [null, null];
  }

  #show() {
    const { found } = this;
    if (!found || this.text === null) return;
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
    lens(this.found, at);
  }
}
