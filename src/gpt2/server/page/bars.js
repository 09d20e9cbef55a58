// Tokens with their probabilities as bars.

import { make } from "./dom.js";
import { say } from "./language.js";
import { settings } from "./settings.js";
import { percent, visible } from "./format.js";

/** The likeliest into a list; take: told of the one that is clicked. words: what its button is called. */
export function bars(list, likeliest, take, words) {
  list.replaceChildren(...likeliest.map((token) => {
    const share = Math.exp(token.logprob ?? -Infinity);
    const said = { piece: visible(token.piece), share: percent(share, settings.language) };
    const parts = [make("code", { text: said.piece }), make("span", { class: "bar" }), make("span", { class: "share", text: said.share })];
    const canTake = token.text !== "";
    const button = make("button", { type: "button", "aria-disabled": !canTake && "true", "aria-label": say(canTake ? words : "half", said) }, ...parts);
    button.title = button.getAttribute("aria-label");
    button.style.setProperty("--share", share);
    if (canTake) button.addEventListener("click", () => take(token));
    return make("li", {}, button);
  }));
}

/** Bars that only show: [{piece, share, before}]. */
export function twoBars(list, rows) {
  list.replaceChildren(...rows.map(({ piece, share, before }) => {
    const said = { piece: visible(piece), share: percent(share, settings.language), before: percent(before, settings.language) };
    const row = make("li", { class: "two-bars" },
      make("code", { text: said.piece, "aria-hidden": "true" }), make("span", { class: "bar", "aria-hidden": "true" }),
      make("span", { class: "share", text: said.share, "aria-hidden": "true" }),
      make("span", { class: "unseen", text: say("shape_bar", said) }));
    row.style.setProperty("--share", share);
    row.style.setProperty("--before", before);
    return row;
  }));
}
