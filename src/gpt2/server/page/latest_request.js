// The latest request of a view about the current text. A new request cancels the one before it.

import { ApiError } from "./api.js";
import { isServerDown, onConnectionChange } from "./connection.js";
import { textTail } from "./context.js";
import { $ } from "./dom.js";
import { onLanguageChange, translate } from "./language.js";

export class LatestRequest {
  /**
   * getModel: returns the description of the selected model. send: the function of api.js that sends a text.
   * noteId: the id of the element that shows the progress. progressName: the name of its text.
   */
  constructor(getModel, send, noteId, progressName) {
    this.getModel = getModel;
    this.send = send;
    this.note = $(noteId);
    this.progressName = progressName;
    this.text = null;
    this.result = null;
    this.error = null; // the message of the error with which the request ended, or the name of its text
    this.controller = new AbortController();
    onConnectionChange(() => this.#showProgress());
    onLanguageChange(() => this.#showProgress());
  }

  /** Request the result for a text. Resolves to true if it arrived and no later request replaced this one. */
  async run(text) {
    this.reset();
    const { signal } = this.controller;
    this.text = text;
    this.#showProgress();
    try {
      const result = await this.send(textTail(text, this.getModel().n_ctx), signal);
      if (signal.aborted) return false;
      this.result = result;
      return true;
    } catch (error) {
      if (signal.aborted) return false; // the text and the note now belong to a later request
      this.text = null; // the next change of the view sends the request again
      this.error = error.message;
      this.#showProgress();
      if (!(error instanceof ApiError)) throw error;
      return false;
    }
  }

  /** Drop the result and cancel the request, because the model or the text has changed. */
  reset() {
    this.controller.abort();
    this.controller = new AbortController();
    this.text = null;
    this.result = null;
    this.error = null;
  }

  /** Show that the request is running, that it waits for the server, or how it failed. */
  #showProgress() {
    const isPending = this.text !== null && this.result === null;
    if (isPending) this.note.textContent = translate(isServerDown() ? "server_down" : this.progressName);
    else if (this.error !== null) this.note.textContent = translate(this.error);
  }
}
