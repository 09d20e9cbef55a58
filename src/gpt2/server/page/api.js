// Requests to the server. Callers never see a missing key, a busy server or a short outage: the request is retried.

import { requestKey, authorizationHeader } from "./api_key.js";
import { showNotice, sleep, waitForServer } from "./connection.js";
import { serverSentEvents } from "./server_sent_events.js";
import { settings } from "./settings.js";

const GATEWAY_ERRORS = [502, 504]; // a reverse proxy answers with these while the server is down

/** An error message from the server. */
export class ApiError extends Error {}

/** A stream that ended before its last event. */
export class StreamError extends Error {}

async function sendRequest(path, body, signal) {
  for (;;) {
    const headers = authorizationHeader();
    const post = {
      method: "POST",
      body: JSON.stringify(body),
      headers: { ...headers, "Content-Type": "application/json" },
    };
    const response = await fetch(path, { signal, ...(body ? post : { headers }) }).catch((error) => {
      if (signal?.aborted) throw error;
      return null;
    });
    if (response === null || GATEWAY_ERRORS.includes(response.status)) await waitForServer(signal);
    else if (response.status === 401) await requestKey(headers.Authorization);
    else if (response.ok) return response;
    else await waitOrThrow(response, signal);
  }
}

/** Wait if the server is busy or restarting. Throw an ApiError for any other error response. */
async function waitOrThrow(response, signal) {
  const { error } = await response.json().catch(() => ({}));
  const isTemporary = response.status === 429 || error?.code === "shutting_down";
  if (!isTemporary) throw new ApiError(error?.message ?? `${response.status}`);
  showNotice("server_busy");
  await sleep(1000 * (Number(response.headers.get("Retry-After")) || 1), signal);
}

const requestJson = async (path, body, signal) => (await sendRequest(path, body, signal)).json();
const withModel = (body) => (settings.model ? { model: settings.model, ...body } : body);

export const fetchModels = async () => (await requestJson("v1/models")).data;
export const fetchTokens = (prompt, signal) => requestJson("tokenize", withModel({ prompt }), signal);
export const fetchScores = (prompt, signal) => requestJson("insight/scores", withModel({ prompt }), signal);
export const fetchLayers = (prompt, signal) => requestJson("insight/layers", withModel({ prompt }), signal);

/** Yield the choices of a completion as they arrive: {index, text, finish_reason}. Throws ApiError or StreamError. */
export async function* streamCompletion(body, signal) {
  const response = await sendRequest("v1/completions", withModel({ ...body, stream: true }), signal);
  try {
    for await (const event of serverSentEvents(response)) {
      if (event.error) throw new ApiError(event.error.message);
      yield* event.choices;
    }
  } catch (error) {
    if (signal.aborted || error instanceof ApiError) throw error;
    throw new StreamError();
  }
}
