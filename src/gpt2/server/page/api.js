// The server: questions and answers. Who asks sees no key, no busy server and none that is away for a moment.

import { back, notice, sleep } from "./connection.js";
import { events } from "./server_sent_events.js";
import { askForKey, authorization } from "./api_key.js";
import { settings } from "./settings.js";

const AWAY = [502, 504]; // what stands before a server that is away answers in its place

/** An error that the server answered. */
export class Refused extends Error {}

/** A stream that broke off. */
export class Broken extends Error {}

async function ask(path, body, signal) {
  for (;;) {
    const headers = authorization();
    const post = { method: "POST", body: JSON.stringify(body), headers: { ...headers, "Content-Type": "application/json" } };
    const response = await fetch(path, { signal, ...(body ? post : { headers }) }).catch((error) => {
      if (signal?.aborted) throw error;
      return null;
    });
    if (response === null || AWAY.includes(response.status)) await back(signal);
    else if (response.status === 401) await askForKey(headers.Authorization);
    else if (response.ok) return response;
    else await refused(response, signal);
  }
}

/** Returns if it is to be asked again. */
async function refused(response, signal) {
  const { error } = await response.json().catch(() => ({}));
  if (response.status !== 429 && error?.code !== "shutting_down") throw new Refused(error?.message ?? `${response.status}`);
  notice("busy");
  await sleep(1000 * (Number(response.headers.get("Retry-After")) || 1), signal);
}

const json = async (path, body, signal) => (await ask(path, body, signal)).json();
const withModel = (body) => (settings.model ? { model: settings.model, ...body } : body);

export const models = async () => (await json("v1/models")).data;
export const tokenize = (prompt, signal) => json("tokenize", withModel({ prompt }), signal);
export const next = (prompt, signal) => json("insight/next", withModel({ prompt }), signal);
export const scores = (prompt, signal) => json("insight/scores", withModel({ prompt }), signal);
export const layers = (prompt, signal) => json("insight/layers", withModel({ prompt }), signal);

/** The choices of a completion as they come: {index, text, finish_reason}. Raises Refused, Broken. */
export async function* complete(body, signal) {
  const response = await ask("v1/completions", withModel({ ...body, stream: true }), signal);
  try {
    for await (const event of events(response)) {
      if (event.error) throw new Refused(event.error.message);
      yield* event.choices;
    }
  } catch (error) {
    if (signal.aborted || error instanceof Refused) throw error;
    throw new Broken();
  }
}
