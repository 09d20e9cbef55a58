// White space and control characters as something that one sees.

const SIGNS = { " ": "·", "\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽", "\u3000": "□" };

/** A token's text, of which every character is seen. */
export function visible(text) {
  if (text === "") return "∅";
  return text.replace(/[\s\u0000-\u001f\u007f\u200b-\u200f\ufeff]/g, (sign) =>
    SIGNS[sign] ?? (sign < " " ? String.fromCharCode(0x2400 + sign.charCodeAt(0)) : "␣"));
}

/** A share of 1 in the language's manner: 0.1234 -> "12.3 %". */
export function percent(share, language) {
  const digits = share >= 0.0995 || share === 0 ? 0 : share >= 0.000995 ? 1 : 2;
  if (share > 0 && share < 0.0001) return `<${(0.01).toLocaleString(language)} %`;
  const number = (100 * share).toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return `${number} %`;
}
