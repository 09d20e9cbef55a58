// Requests to the server. Callers never see a missing key, a busy server or an outage: the request is retried.

import { requestKey, authorizationHeader } from "./api_key.js";
import { showNotice, sleep, waitForServer } from "./connection.js";
import { translate } from "./language.js";
import { serverSentEvents } from "./server_sent_events.js";
import { settings } from "./settings.js";
import { Watchdog } from "./watchdog.js";

const FIRST_GATEWAY_ERROR = 502; // a reverse proxy answers with this status or a higher one while the server is down
const MAX_OUTAGES = 4; // if the server recovers so often and still does not answer, the request may be the cause

/** An error message from the server, or the name of a text of the page. */
export class ApiError extends Error {}

/** A stream that ended before its last event. */
export class StreamError extends Error {}

/**
 * Send a request and yield the values that `read` finds in the response. If the connection breaks before the first
 * value, wait for the server and send the request again. Throws ApiError, or StreamError after the first value.
 */
async function* exchange(path, body, signal, read) {
  for (let outages = 0; ;) {
    const watchdog = new Watchdog(signal);
    const headers = authorizationHeader();
    let hasValues = false;
    let isOutage = false;
    try {
      const response = await fetch(path, requestOptions(body, headers, watchdog.signal));
      if (response.ok) {
        for await (const value of read(response, () => watchdog.feed())) {
          hasValues = true;
          yield value;
        }
        return;
      }
      watchdog.stop();
      if (response.status === 401) await requestKey(headers.Authorization);
      else isOutage = await handleError(response, signal);
    } catch (error) {
      if (signal?.aborted || error instanceof ApiError) throw error;
      if (hasValues) throw new StreamError();
      isOutage = true;
    } finally {
      watchdog.stop();
    }
    outages += isOutage;
    if (outages > MAX_OUTAGES) throw new ApiError("no_answer");
    if (isOutage) await waitForServer(signal);
  }
}

function requestOptions(body, headers, signal) {
  if (!body) return { headers, signal };
  const jsonHeaders = { ...headers, "Content-Type": "application/json" };
  return { method: "POST", body: JSON.stringify(body), headers: jsonHeaders, signal };
}

/** Wait if the server is busy or shutting down. Return true if it is down. Throw an ApiError for any other error. */
async function handleError(response, signal) {
  const error = (await response.json().catch(() => null))?.error;
  if (response.status >= FIRST_GATEWAY_ERROR && !error?.message) return true;
  const isTemporary = response.status === 429 || error?.code === "shutting_down";
  if (!isTemporary) throw new ApiError(error?.message ?? translate("server_error", { status: response.status }));
  showNotice("server_busy");
  await sleep(1000 * (Number(response.headers.get("Retry-After")) || 1), signal);
  return false;
}

async function* readJson(response) {
  yield await response.json().catch((error) => {
    throw error instanceof SyntaxError ? new ApiError("unreadable_answer") : error;
  });
}

async function requestJson(path, body, signal) {
  for await (const value of exchange(path, body, signal, readJson)) return value;
}

const withModel = (body) => (settings.model ? { model: settings.model, ...body } : body);

export const fetchModels = async () => (await requestJson("v1/models")).data;
export const fetchTokens = (prompt, signal) => requestJson("tokenize", withModel({ prompt }), signal);
export const fetchScores = (prompt, signal) => requestJson("insight/scores", withModel({ prompt }), signal);
export const fetchLayers = (prompt, signal) => requestJson("insight/layers", withModel({ prompt }), signal);

async function* readChoices(response, onData) {
  for await (const event of serverSentEvents(response)) {
    onData();
    if (event.error) throw new ApiError(event.error.message);
    yield* event.choices;
  }
}

/** Return an iterator over the choices of a completion: {index, text, finish_reason}, each as it arrives. */
export function streamCompletion(body, signal) {
  return exchange("v1/completions", withModel({ ...body, stream: true }), signal, readChoices);
}
