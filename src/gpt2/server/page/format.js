// Formats tokens and probabilities for display.

const VISIBLE_CHARACTERS = { " ": "·", "\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽", "\u3000": "□" };
const CONTROL_PICTURES = 0x2400; // the Unicode block with a symbol for each control character

/** Return the text of a token with white space and control characters replaced by visible symbols. */
export function visibleText(text) {
  if (text === "") return "∅";
  return text.replace(/[\s\u0000-\u001f\u007f\u200b-\u200f\ufeff]/g, (character) => {
    const picture = character < " " ? String.fromCharCode(CONTROL_PICTURES + character.charCodeAt(0)) : "␣";
    return VISIBLE_CHARACTERS[character] ?? picture;
  });
}

/** Return a probability as a percentage in the style of the language: 0.0123 -> "1.2 %" or "1,2 %". */
export function formatPercent(probability, language) {
  if (probability > 0 && probability < 0.0001) return `<${(0.01).toLocaleString(language)} %`;
  const digits = fractionDigits(probability);
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return `${(100 * probability).toLocaleString(language, options)} %`;
}

function fractionDigits(probability) {
  if (probability >= 0.0995 || probability === 0) return 0;
  return probability >= 0.000995 ? 1 : 2;
}
