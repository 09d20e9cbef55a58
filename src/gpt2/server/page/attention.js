// Attention: a head's matrix as a picture, and what one token looks at as strengths over the text.

import { $, make } from "./dom.js";
import { say } from "./language.js";
import { Attention } from "./base64.js";
import { onChange, settings } from "./settings.js";
import { percent, visible } from "./format.js";

const SIDE = 512; // pixels of the picture, at least

export class AttentionCard {
  /** choose: told of the token whose row was clicked. */
  constructor(choose) {
    Object.assign(this, { found: null, layer: 0, head: -1, at: 0 });
    for (const name of ["layer", "head"]) {
      $(name).addEventListener("change", () => {
        this[name] = Number($(name).value);
        this.#draw();
      });
    }
    $("matrix").addEventListener("click", (event) => {
      const box = $("matrix").getBoundingClientRect();
      choose(Math.min(this.found.tokens.length - 1, Math.floor(((event.clientY - box.top) / box.height) * this.found.tokens.length)));
    });
    const again = () => this.found && this.#draw(); // a picture keeps the colours in which it was drawn
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    onChange((changed) => "theme" in changed && again());
  }

  open(found) {
    this.found = found;
    this.layer = Math.min(this.layer, found.attention.length - 1);
    this.head = Math.min(this.head, found.n_head - 1);
    const option = (value, text) => make("option", { value, text });
    $("layer").replaceChildren(...found.attention.map((_, i) => option(i, i + 1)));
    $("head").replaceChildren(option(-1, say("all_heads")), ...Array.from({ length: found.n_head }, (_, i) => option(i, i + 1)));
    $("layer").value = this.layer;
    $("head").value = this.head;
  }

  choose(at) {
    this.at = at;
    this.#draw();
  }

  #draw() {
    const { found, layer, head, at } = this;
    const attention = new Attention(found.attention[layer], found.tokens.length);
    const row = found.tokens.slice(0, at + 1).map((_, to) => attention.at(head, at, to));
    this.#picture(attention);
    this.#strengths(row);
    const most = row.indexOf(Math.max(...row));
    $("matrix").setAttribute("aria-label", say("matrix_said", {
      layer: layer + 1, head: head < 0 ? say("all_heads") : head + 1, n: found.tokens.length,
      piece: visible(found.tokens[at].piece), most: visible(found.tokens[most].piece) }));
  }

  #picture(attention) {
    const count = this.found.tokens.length;
    const cell = Math.max(1, Math.floor(SIDE / count));
    const canvas = $("matrix");
    canvas.width = canvas.height = cell * count;
    const draw = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    draw.fillStyle = style.color;
    for (let from = 0; from < count; from += 1) {
      for (let to = 0; to <= from; to += 1) {
        draw.globalAlpha = Math.sqrt(attention.at(this.head, from, to));
        draw.fillRect(to * cell, from * cell, cell, cell);
      }
    }
    draw.globalAlpha = 1;
    draw.strokeStyle = style.caretColor;
    draw.lineWidth = Math.max(2, cell / 8);
    draw.strokeRect(0, this.at * cell, (this.at + 1) * cell, cell);
  }

  #strengths(row) {
    const { tokens } = this.found;
    $("strengths-said").textContent = say("strengths_said", { piece: visible(tokens[this.at].piece) });
    $("strengths").replaceChildren(...row.map((share, i) => {
      const said = percent(share, settings.language);
      const token = make("span", { text: visible(tokens[i].piece), title: said });
      token.style.setProperty("--strength", Math.sqrt(share));
      if (share >= 0.1) token.append(make("small", { text: said }));
      return token;
    }));
  }
}
