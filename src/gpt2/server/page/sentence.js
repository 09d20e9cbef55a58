// Finds the end of a sentence.

const SENTENCE_END = /[.!?…]+["'”’»“)\]]*(?=\s)|[。！？]["'”’」』)]*/g;
const SENTENCE_END_AT_TEXT_END = /[.!?…。！？]+["'”’»“)\]」』]*$/;
// A period does not end a sentence after a single letter (as in "z. B."), a number or an abbreviation.
const ABBREVIATION = /(?:^|[\s(.])(?:\p{L}|\d{1,2}|Mr|Mrs|Ms|Dr|Prof|St|Hr|Fr|Nr|No|vs|ca|bzw|etc|vgl)\.$/u;

/**
 * Return the position in `text` after the first end of a sentence, or -1. `before` is the text that precedes it.
 * A period counts only if white space follows it, or if it ends a complete text (`isComplete`).
 */
export function sentenceEnd(before, text, isComplete = false) {
  const endsSentence = (end) => !ABBREVIATION.test((before + text.slice(0, end)).slice(-12));
  for (const match of text.matchAll(SENTENCE_END)) {
    const end = match.index + match[0].length;
    if (endsSentence(end)) return end;
  }
  return isComplete && SENTENCE_END_AT_TEXT_END.test(text) && endsSentence(text.length) ? text.length : -1;
}
