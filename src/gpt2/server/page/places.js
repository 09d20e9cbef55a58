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

function nearly(text, tokens) {
  let at = 0;
  return tokens.map(({ text: said }) => {
    const start = at;
    const word = said.trim();
    const found = text.startsWith(said, at) ? at + said.indexOf(word) : text.indexOf(word, at);
    if (word && found >= 0 && found <= at + said.length + NEAR) at = found + word.length;
    else at = Math.min(text.length, at + said.length);
    return [start, at];
  });
}
