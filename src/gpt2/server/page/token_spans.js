// Finds the tokens in the text that they came from.

const MAX_LOST_WHITESPACE = 8; // characters of white space that a vocabulary may drop at one token

/**
 * Return the span [start, end] of each token in the text, in UTF-16 code units. The tokens are the end of the text.
 * A vocabulary that normalizes white space (SentencePiece) gives tokens that differ from the text; these are matched
 * approximately.
 */
export function tokenSpans(text, tokens) {
  const tokenText = tokens.map((token) => token.text).join("");
  if (text.endsWith(tokenText)) return exactSpans(tokens, text.length - tokenText.length);
  return approximateSpans(text, tokens);
}

function exactSpans(tokens, start) {
  let position = start;
  return tokens.map((token) => {
    const span = [position, position + token.text.length];
    position += token.text.length;
    return span;
  });
}

/** Match the tokens from the last to the first, because only the end of the text is sure to be the last token. */
function approximateSpans(text, tokens) {
  let position = text.length;
  return tokens.map((token) => token.text).reverse().map((tokenText) => {
    const end = position;
    const word = tokenText.trim();
    const match = word ? text.lastIndexOf(word, position - word.length) : -1;
    const leadingSpace = /^\s/.test(tokenText) && /\s/.test(text[match - 1] ?? "") ? 1 : 0;
    const isNear = match >= 0 && match >= position - tokenText.length - MAX_LOST_WHITESPACE;
    position = isNear ? match - leadingSpace : Math.max(0, position - tokenText.length);
    return [position, end];
  }).reverse();
}
