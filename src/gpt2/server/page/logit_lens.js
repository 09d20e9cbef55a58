// The logit lens: what each layer would say next, at one place of the text.

import { $, make } from "./dom.js";
import { say } from "./language.js";
import { settings } from "./settings.js";
import { percent, visible } from "./format.js";

const SHOWN = 3; // guesses of a layer

/** The table for the token at this place. */
export function lens({ tokens, guesses, pieces }, at) {
  const actual = tokens[at + 1];
  const said = { piece: visible(tokens[at].piece), actual: actual && visible(actual.piece) };
  $("lens-said").textContent = say(actual ? "lens_said_actual" : "lens_said", said);
  const heading = (text) => make("th", { scope: "col", text });
  const headings = Array.from({ length: SHOWN }, (_, i) => heading(say("lens_guess", { n: i + 1 })));
  const head = make("tr", {}, heading(say("lens_layer")), ...headings, ...(actual ? [heading(say("lens_actual"))] : []));
  const rows = guesses.map((guess, layer) => {
    const cells = guess.ids[at].slice(0, SHOWN).map((id, i) => cell(pieces[id], guess.probabilities[at][i], id === actual?.id));
    if (actual) cells.push(make("td", { class: "number", text: percent(guess.actual[at], settings.language) }));
    return make("tr", {}, make("th", { scope: "row", text: layer ? `${layer}` : say("lens_0") }), ...cells);
  });
  $("lens").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
}

function cell(piece, share, isActual) {
  const shown = make("td", { class: isActual ? "actual" : "" }, make("code", { text: visible(piece) }), " ",
    make("small", { text: percent(share, settings.language) }));
  shown.style.setProperty("--share", share);
  return shown;
}
