// Continuations: one that streams into the text, or three to choose from.

import { Broken, complete, Refused } from "./api.js";
import { notice, refusal } from "./connection.js";
import { context, without } from "./context.js";
import { sentenceEnd } from "./sentence.js";
import { sampling, settings } from "./settings.js";

const SENTENCE = 150; // tokens in which a sentence has to end
const TRIES = 5; // for a continuation that begins a word, where a space was typed already

/** nCtx: what the chosen model's context holds, told when asked. choices: where several are shown. */
export class Autopilot {
  constructor(editor, choices, nCtx) {
    Object.assign(this, { editor, choices, nCtx });
  }

  /** One continuation at the cursor, or another one in place of it. */
  async goOn(untilSentence = settings.sentence) {
    this.choices.dismiss();
    const { editor } = this;
    const asking = new AbortController();
    const suggestion = editor.begin(() => asking.abort());
    const before = editor.prefix(suggestion);
    try {
      for await (const [text] of this.#texts(before, 1, untilSentence, asking.signal, TRIES)) {
        if (!editor.suggest(suggestion, text)) break;
      }
    } catch (error) {
      told(error, asking.signal);
    }
    if (editor.suggestion === suggestion) editor.stop();
    asking.abort();
  }

  /** Three of them beside each other; the text stays as it is until one is chosen. */
  async offer(untilSentence = settings.sentence) {
    const { editor, choices } = this;
    if (editor.isSuggesting) editor.remove();
    else editor.keep();
    const asking = new AbortController();
    const { selectionStart: start, selectionEnd: end } = editor.area;
    const offered = choices.begin({ start, end, base: editor.tree.current }, () => asking.abort());
    try {
      for await (const texts of this.#texts(editor.text.slice(0, start), offered.count, untilSentence, asking.signal)) {
        choices.show(offered, texts);
      }
    } catch (error) {
      told(error, asking.signal);
    }
    choices.ended(offered);
    asking.abort();
  }

  /** So many texts as they grow, all of each every time. tries: for the first one to begin a word where it should. */
  async *#texts(before, n, untilSentence, signal, tries = 1) {
    const room = untilSentence ? SENTENCE : settings.length;
    const { prompt, owed } = await context(before, await this.nCtx(), room, signal);
    const isMidWord = (text) => owed && text && !/^\s/.test(text);
    const raw = Array(n).fill("");
    const texts = Array(n).fill("");
    const ended = Array(n).fill(false);
    for await (const { index, text, finish_reason: isAll } of complete({ prompt, n, max_tokens: room, ...sampling() }, signal)) {
      if (ended[index]) continue;
      raw[index] += text;
      if (tries > 1 && isMidWord(raw[index])) return yield* this.#texts(before, n, untilSentence, signal, tries - 1);
      texts[index] = without(owed, raw[index]);
      const end = untilSentence ? sentenceEnd(before, texts[index], Boolean(isAll)) : -1;
      if (end >= 0) texts[index] = texts[index].slice(0, end);
      ended[index] = end >= 0 || Boolean(isAll);
      yield [...texts];
      if (ended.every(Boolean)) return;
    }
  }
}

/** Says what went wrong, unless it was meant. */
export function told(error, signal) {
  if (error instanceof Refused) refusal(error.message);
  else if (error instanceof Broken) notice("broken");
  else if (!signal?.aborted) throw error;
}
