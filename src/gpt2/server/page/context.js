// Chooses which part of a text is sent: all of it, or the last tokens that fit the context of the model.

import { fetchTokens } from "./api.js";

const MAX_CHARACTERS_PER_TOKEN = 16;

/**
 * Return {prompt, heldBackSpace} for the text before the cursor. prompt is a string, or a list of token ids if the
 * text may not fit the context. The start of the window moves in large steps, so that the server can reuse most of
 * its cache. A single space at the end is held back, because GPT-2's tokens include the space before a word.
 */
export async function buildPrompt(text, nCtx, maxTokens, signal) {
  const heldBackSpace = /[^\s] $/.test(text) ? " " : "";
  const prompt = heldBackSpace ? text.slice(0, -1) : text;
  const maxPromptTokens = nCtx - Math.min(maxTokens, nCtx >> 1);
  const maxByteTokens = new Blob([prompt]).size + 8; // a token has at least one byte
  if (maxByteTokens < maxPromptTokens) return { prompt, heldBackSpace };
  const { tokens } = await fetchTokens(textTail(prompt, nCtx), signal);
  const start = windowStart(tokens.length, maxPromptTokens, Math.max(1, nCtx >> 2));
  return { prompt: tokens.slice(start), heldBackSpace };
}

/** Return the index of the first of `count` ids to send if at most `maxCount` may be sent: a multiple of `step`. */
function windowStart(count, maxCount, step) {
  return count <= maxCount ? 0 : Math.min(count - 1, Math.ceil((count - maxCount) / step) * step);
}

/** Return the end of a text, longer than the context. Its start moves in steps too, and never splits a word. */
export function textTail(text, nCtx) {
  const step = (nCtx * MAX_CHARACTERS_PER_TOKEN) / 2;
  const start = Math.max(0, Math.floor(text.length / step) - 1) * step;
  const space = start && text.slice(start).search(/\s/);
  return text.slice(start + Math.max(0, space));
}

/** Remove the space that the text before the cursor already ends with from the start of a continuation. */
export function removeHeldBackSpace(heldBackSpace, continuation) {
  return heldBackSpace && continuation.startsWith(heldBackSpace)
    ? continuation.slice(heldBackSpace.length)
    : continuation;
}
