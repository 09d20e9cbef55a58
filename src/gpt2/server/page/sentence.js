// Where a sentence ends.

const END = /[.!?…]+["'”’»“)\]]*(?=\s)|[。！？]["'”’」』)]*/g;
const END_AT_LAST = /[.!?…。！？]+["'”’»“)\]」』]*$/;
// What a full stop may stand after without ending anything: one letter, as in "z. B.", a number, a title.
const NO_END = /(?:^|[\s(.])(?:\p{L}|\d{1,2}|Mr|Mrs|Ms|Dr|Prof|St|Hr|Fr|Nr|No|vs|ca|bzw|etc|vgl)\.$/u;

/**
 * The place in `text` after the first end of a sentence, or -1; `before` is what it goes on from.
 * A full stop counts once white space follows, unless no more text comes (`isAll`).
 */
export function sentenceEnd(before, text, isAll = false) {
  const ends = (to) => !NO_END.test((before + text.slice(0, to)).slice(-12));
  for (const found of text.matchAll(END)) {
    const to = found.index + found[0].length;
    if (ends(to)) return to;
  }
  return isAll && END_AT_LAST.test(text) && ends(text.length) ? text.length : -1;
}
