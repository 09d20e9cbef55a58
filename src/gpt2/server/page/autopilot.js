// Continuations: one that streams into the text, or three to choose from.

import { ApiError, streamCompletion, StreamError } from "./api.js";
import { showError, showNotice } from "./connection.js";
import { buildPrompt, removeHeldBackSpace } from "./context.js";
import { sentenceEnd } from "./sentence.js";
import { samplingParameters, settings } from "./settings.js";

const MAX_SENTENCE_TOKENS = 150;
const MAX_ATTEMPTS = 5; // to get a continuation that starts a new word, if the text ends with a space

export class Autopilot {
  /** getContextSize: resolves to the n_ctx of the selected model. choices: shows several continuations. */
  constructor(editor, choices, getContextSize) {
    this.editor = editor;
    this.choices = choices;
    this.getContextSize = getContextSize;
    this.untilSentenceEnd = false; // of the latest continuation
  }

  /** Stream one continuation in at the cursor. A pending suggestion is kept, and the continuation follows it. */
  async continueText(untilSentenceEnd = settings.sentence) {
    if (this.choices.isOpen) return this.choices.remind();
    if (this.editor.isSuggestionSelected) this.editor.acceptSuggestion();
    await this.#suggest(untilSentenceEnd);
  }

  /** Replace the pending suggestion, or the open choices, with others. The old ones stay as branches. */
  async tryAgain() {
    if (this.choices.isOpen) {
      this.choices.dismiss();
      await this.showChoices(this.untilSentenceEnd);
    } else if (this.editor.isSuggestionSelected) {
      await this.#suggest(this.untilSentenceEnd);
    }
  }

  async #suggest(untilSentenceEnd) {
    this.untilSentenceEnd = untilSentenceEnd;
    const { editor } = this;
    const controller = new AbortController();
    const suggestion = editor.beginSuggestion(() => controller.abort());
    const textBefore = editor.textBefore(suggestion);
    try {
      for await (const [text] of this.#generate(textBefore, 1, untilSentenceEnd, controller.signal, MAX_ATTEMPTS)) {
        if (!editor.updateSuggestion(suggestion, text)) break;
      }
    } catch (error) {
      reportError(error, controller.signal);
    } finally {
      if (editor.suggestion === suggestion) editor.finishSuggestion();
      controller.abort();
    }
  }

  /** Show several continuations side by side. The text stays unchanged until the user chooses one. */
  async showChoices(untilSentenceEnd = settings.sentence) {
    const { editor, choices } = this;
    if (choices.isOpen) return choices.remind();
    this.untilSentenceEnd = untilSentenceEnd;
    if (editor.isSuggestionSelected) editor.acceptSuggestion();
    else editor.finishSuggestion();
    const controller = new AbortController();
    const { selectionStart: start, selectionEnd: end } = editor.area;
    const offer = choices.open({ start, end, base: editor.tree.current }, () => controller.abort());
    const textBefore = editor.text.slice(0, start);
    try {
      for await (const texts of this.#generate(textBefore, offer.count, untilSentenceEnd, controller.signal)) {
        choices.update(offer, texts);
      }
      choices.finish(offer);
    } catch (error) {
      choices.finish(offer, false);
      reportError(error, controller.signal);
    } finally {
      controller.abort();
    }
  }

  /**
   * Yield the n continuations after each new piece of text: all n texts so far, every time.
   * attempts: how often to try for a first continuation that starts a new word where the text ends with a space.
   */
  async *#generate(textBefore, n, untilSentenceEnd, signal, attempts = 1) {
    const maxTokens = untilSentenceEnd ? MAX_SENTENCE_TOKENS : settings.length;
    const { prompt, heldBackSpace } = await buildPrompt(textBefore, await this.getContextSize(), maxTokens, signal);
    const continuesWord = (text) => heldBackSpace && text && !/^\s/.test(text);
    const received = Array(n).fill("");
    const texts = Array(n).fill("");
    const isFinished = Array(n).fill(false);
    const stream = streamCompletion({ prompt, n, max_tokens: maxTokens, ...samplingParameters() }, signal);
    for await (const { index, text, finish_reason: finishReason } of stream) {
      if (isFinished[index]) continue;
      received[index] += text;
      if (attempts > 1 && continuesWord(received[index])) {
        return yield* this.#generate(textBefore, n, untilSentenceEnd, signal, attempts - 1);
      }
      texts[index] = removeHeldBackSpace(heldBackSpace, received[index]);
      const end = untilSentenceEnd ? sentenceEnd(textBefore, texts[index], Boolean(finishReason)) : -1;
      if (end >= 0) texts[index] = texts[index].slice(0, end);
      isFinished[index] = end >= 0 || Boolean(finishReason);
      yield [...texts];
      if (isFinished.every(Boolean)) return;
    }
  }
}

/** Show an error to the user. Errors caused by cancelling the request (signal) are ignored. */
export function reportError(error, signal) {
  if (error instanceof ApiError) showError(error.message);
  else if (error instanceof StreamError) showNotice("stream_broken");
  else if (!signal?.aborted) throw error;
}
