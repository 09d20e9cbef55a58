// Lists of tokens with their probabilities as bars.

import { createElement } from "./dom.js";
import { formatPercent, visibleText } from "./format.js";
import { translate } from "./language.js";
import { settings } from "./settings.js";

/**
 * Fill a list with a button for each token. onSelect: called with the token that was clicked.
 * labelName: the name of the button's label in the texts.
 */
export function showTokenBars(list, tokens, onSelect, labelName) {
  list.replaceChildren(...tokens.map((token) => {
    const share = Math.exp(token.logprob ?? -Infinity);
    const values = { piece: visibleText(token.piece), share: formatPercent(share, settings.language) };
    const isSelectable = token.text !== ""; // a token that is only part of a character has no text of its own
    const label = translate(isSelectable ? labelName : "partial_character", values);
    const button = createElement(
      "button",
      { type: "button", "aria-disabled": !isSelectable && "true", "aria-label": label, title: label },
      createElement("code", { text: values.piece }),
      createElement("span", { class: "bar" }),
      createElement("span", { class: "share", text: values.share }),
    );
    button.style.setProperty("--share", share);
    if (isSelectable) button.addEventListener("click", () => onSelect(token));
    return createElement("li", {}, button);
  }));
}

/** Fill a list with bars that compare two probabilities of each token: [{piece, share, originalShare}]. */
export function showComparisonBars(list, rows) {
  list.replaceChildren(...rows.map(({ piece, share, originalShare }) => {
    const values = {
      piece: visibleText(piece),
      share: formatPercent(share, settings.language),
      original: formatPercent(originalShare, settings.language),
    };
    const row = createElement(
      "li",
      { class: "comparison-bar" },
      createElement("code", { text: values.piece, "aria-hidden": "true" }),
      createElement("span", { class: "bar", "aria-hidden": "true" }),
      createElement("span", { class: "share", text: values.share, "aria-hidden": "true" }),
      createElement("span", { class: "visually-hidden", text: translate("sampling_bar", values) }),
    );
    row.style.setProperty("--share", share);
    row.style.setProperty("--original-share", originalShare);
    return row;
  }));
}
