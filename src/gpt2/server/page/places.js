// Where tokens stand in the text that they were made of.

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
    const found = text.indexOf(said.trim(), at);
    if (found >= 0 && found <= at + said.length + 8) at = found + said.trim().length;
    else at = Math.min(text.length, at + said.length);
    return [start, at];
  });
}
