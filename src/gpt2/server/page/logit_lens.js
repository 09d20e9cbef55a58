// The logit lens: which token each layer would predict after a selected token.

import { $, createElement } from "./dom.js";
import { formatPercent, visibleText } from "./format.js";
import { translate } from "./language.js";
import { settings } from "./settings.js";

const GUESSES_PER_LAYER = 3;

/** Show the table of guesses after the token with this index, for a response of /insight/layers. */
export function showLogitLens({ tokens, guesses, pieces }, index) {
  const nextToken = tokens[index + 1]; // undefined at the end of the text
  const values = { piece: visibleText(tokens[index].piece), actual: nextToken && visibleText(nextToken.piece) };
  $("lens-caption").textContent = translate(nextToken ? "lens_caption_actual" : "lens_caption", values);
  const rows = guesses.map((guess, layer) => {
    const cells = guess.ids[index].slice(0, GUESSES_PER_LAYER).map((id, i) =>
      guessCell(pieces[id], guess.probabilities[index][i], id === nextToken?.id));
    if (nextToken) {
      const probability = formatPercent(guess.actual[index], settings.language);
      cells.push(createElement("td", { class: "number", text: probability }));
    }
    const layerName = layer ? `${layer}` : translate("lens_input");
    return createElement("tr", {}, createElement("th", { scope: "row", text: layerName }), ...cells);
  });
  const head = createElement("thead", {}, headingRow(Boolean(nextToken)));
  $("lens").replaceChildren(head, createElement("tbody", {}, ...rows));
}

function headingRow(hasActual) {
  const guessNames = Array.from({ length: GUESSES_PER_LAYER }, (_, i) => translate("lens_guess", { n: i + 1 }));
  const names = [translate("lens_layer"), ...guessNames];
  if (hasActual) names.push(translate("lens_actual"));
  return createElement("tr", {}, ...names.map((text) => createElement("th", { scope: "col", text })));
}

function guessCell(piece, probability, isActual) {
  const cell = createElement("td", { class: isActual ? "actual" : "" },
    createElement("code", { text: visibleText(piece) }), " ",
    createElement("small", { text: formatPercent(probability, settings.language) }));
  cell.style.setProperty("--share", probability);
  return cell;
}
