// What of a text is sent: all of it, or the last ids that the model's context holds.

import { tokenize } from "./api.js";

const CHARACTERS = 16; // for each token of the context, at most

/**
 * Text before the cursor -> {prompt, owed}. The window begins at a place that stays the same while one writes on, so
 * that the server finds most of it computed already. One space at the end is owed, not sent: to GPT-2 spaces belong to
 * the words that follow them.
 */
export async function context(text, nCtx, room, signal) {
  const owed = /[^\s] $/.test(text) ? " " : "";
  const prompt = owed ? text.slice(0, -1) : text;
  const kept = nCtx - Math.min(room, nCtx >> 1);
  if (new Blob([prompt]).size + 8 < kept) return { prompt, owed };
  const { tokens } = await tokenize(lastPart(prompt, nCtx), signal);
  return { prompt: tokens.slice(windowStart(tokens.length, kept, Math.max(1, nCtx >> 2))), owed };
}

/** The first of `count` ids that is sent if `kept` of them may be: a multiple of `step`. */
export function windowStart(count, kept, step) {
  return count <= kept ? 0 : Math.min(count - 1, Math.ceil((count - kept) / step) * step);
}

/** The last part of a text, more than the context holds; it begins at a place that stays the same for a while. */
export function lastPart(text, nCtx) {
  const step = (nCtx * CHARACTERS) / 2;
  const start = Math.max(0, Math.floor(text.length / step) - 1) * step;
  const space = start && text.slice(start).search(/\s/);
  return text.slice(start + Math.max(0, space));
}

/** What a continuation adds to a text that owed a space. */
export function without(owed, continuation) {
  return owed && continuation.startsWith(owed) ? continuation.slice(owed.length) : continuation;
}
