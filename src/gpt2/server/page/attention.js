// The attention panel: the matrix of one head as an image, and the attention of one token as shading over the text.

import { AttentionWeights } from "./base64.js";
import { $, createElement, keepInView } from "./dom.js";
import { formatPercent, visibleText } from "./format.js";
import { translate } from "./language.js";
import { onSettingsChange, settings } from "./settings.js";

const MAX_IMAGE_PIXELS = 512; // side length of the matrix image, unless it has more tokens than that
const MIN_FRAME_PIXELS = 2; // width of the frame around the selected row, in pixels of the page
const AVERAGE_OF_HEADS = -1;

export class AttentionCard {
  /** onTokenSelect: called with the index of the token whose row was clicked. */
  constructor(onTokenSelect) {
    this.insight = null;
    this.layer = 0;
    this.head = AVERAGE_OF_HEADS;
    this.tokenIndex = 0;
    for (const name of ["layer", "head"]) {
      $(name).addEventListener("change", () => {
        this[name] = Number($(name).value);
        this.#draw();
      });
    }
    $("matrix").addEventListener("click", (event) => onTokenSelect(this.#rowAt(event.clientY)));
    const redraw = () => this.insight && this.#draw(); // a canvas keeps the colors of the theme it was drawn in
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    onSettingsChange((changed) => "theme" in changed && redraw());
    new ResizeObserver(redraw).observe($("matrix")); // the width of the mark depends on the size of the image
    this.showSelectedStrength = keepInView($("strengths"), () => $("strengths").lastElementChild);
  }

  /** Fill the menus of layers and heads for a response of /insight/layers. */
  open(insight) {
    this.insight = insight;
    this.layer = Math.min(this.layer, insight.attention.length - 1);
    this.head = Math.min(this.head, insight.n_head - 1);
    const option = (value, text) => createElement("option", { value, text });
    const headOptions = Array.from({ length: insight.n_head }, (_, i) => option(i, i + 1));
    $("layer").replaceChildren(...insight.attention.map((_, i) => option(i, i + 1)));
    $("head").replaceChildren(option(AVERAGE_OF_HEADS, translate("all_heads")), ...headOptions);
    $("layer").value = this.layer;
    $("head").value = this.head;
  }

  select(tokenIndex) {
    this.tokenIndex = tokenIndex;
    this.#draw();
  }

  #rowAt(clientY) {
    const box = $("matrix").getBoundingClientRect();
    const count = this.insight.tokens.length;
    return Math.max(0, Math.min(count - 1, Math.floor(((clientY - box.top) / box.height) * count)));
  }

  #draw() {
    const { insight, layer, head, tokenIndex } = this;
    const weights = new AttentionWeights(insight.attention[layer], insight.tokens.length);
    const row = insight.tokens.slice(0, tokenIndex + 1).map((_, to) => weights.get(head, tokenIndex, to));
    this.#drawMatrix(weights);
    this.#showStrengths(row);
    const topIndex = row.indexOf(Math.max(...row));
    $("matrix").setAttribute("aria-label", translate("matrix_label", {
      layer: layer + 1,
      head: head < 0 ? translate("all_heads") : head + 1,
      n: insight.tokens.length,
      piece: visibleText(insight.tokens[tokenIndex].piece),
      top: visibleText(insight.tokens[topIndex].piece),
    }));
  }

  #drawMatrix(weights) {
    const count = this.insight.tokens.length;
    const cell = Math.max(1, Math.floor(MAX_IMAGE_PIXELS / count));
    const canvas = $("matrix");
    canvas.width = cell * count;
    canvas.height = cell * count;
    const context = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    context.fillStyle = style.color;
    for (let from = 0; from < count; from += 1) {
      for (let to = 0; to <= from; to += 1) {
        context.globalAlpha = Math.sqrt(weights.get(this.head, from, to));
        context.fillRect(to * cell, from * cell, cell, cell);
      }
    }
    context.globalAlpha = 1;
    context.strokeStyle = style.caretColor;
    this.#markRow(context, cell);
  }

  /** Frame the row of the selected token. The frame stays visible if the page shows the image smaller than it is. */
  #markRow(context, cell) {
    const { width, clientWidth } = context.canvas;
    const lineWidth = Math.max(2, cell / 8, MIN_FRAME_PIXELS * (clientWidth ? width / clientWidth : 1));
    const inside = (position) => Math.max(lineWidth / 2, Math.min(width - lineWidth / 2, position));
    const [top, end] = [this.tokenIndex, this.tokenIndex + 1].map((position) => inside(position * cell));
    context.lineWidth = lineWidth;
    context.strokeRect(lineWidth / 2, top, Math.max(lineWidth, end - lineWidth / 2), end - top);
  }

  #showStrengths(row) {
    const { tokens } = this.insight;
    const piece = visibleText(tokens[this.tokenIndex].piece);
    $("strengths-caption").textContent = translate("strengths_caption", { piece });
    $("strengths").replaceChildren(...row.map((weight, i) => {
      const percent = formatPercent(weight, settings.language);
      const span = createElement("span", { text: visibleText(tokens[i].piece), title: percent });
      span.style.setProperty("--strength", Math.sqrt(weight));
      if (weight >= 0.1) span.append(createElement("small", { text: percent }));
      if (i === this.tokenIndex) span.setAttribute("aria-current", "true");
      return span;
    }));
    this.showSelectedStrength();
  }
}
