// Where tokens stand in the text that they were made of.

const NEAR = 8; // characters of white space that a token may have lost

/**
 * The text before the first of the tokens and the place of each: [[start, end], ...], in the units of JavaScript's
 * strings. What the tokens say is the end of the text; a vocabulary that tidies white space may say it differently.
 */
export function places(text, tokens) {
  const said = tokens.map((token) => token.text).join("");
  if (text.endsWith(said)) return along(tokens, text.length - said.length);
  return nearly(text, tokens);
}

function along(tokens, start) {
  return tokens.map(({ text }) => {
    const place = [start, start + text.length];
    [, start] = place;
    return place;
  });
}

/** From the end of the text, which is there for certain, to where the first token begins. */
function nearly(text, tokens) {
  let at = text.length;
  return tokens.map((token) => token.text).reverse().map((said) => {
    const end = at;
    const word = said.trim();
    const found = word ? text.lastIndexOf(word, at - word.length) : -1;
    const space = /^\s/.test(said) && /\s/.test(text[found - 1] ?? "") ? 1 : 0;
    if (found >= 0 && found >= at - said.length - NEAR) at = found - space;
    else at = Math.max(0, at - said.length);
    return [at, end];
  }).reverse();
}
