// The latest request of a view about the current text. A new request cancels the one before it.

import { reportError } from "./autopilot.js";
import { textTail } from "./context.js";
import { $ } from "./dom.js";

export class LatestRequest {
  /**
   * getModel: returns the description of the selected model. send: the function of api.js that sends a text.
   * noteId: the id of the element that shows the progress.
   */
  constructor(getModel, send, noteId) {
    this.getModel = getModel;
    this.send = send;
    this.note = $(noteId);
    this.text = null;
    this.result = null;
    this.controller = new AbortController();
  }

  /** Request the result for a text. Resolves to true if it arrived and no later request replaced this one. */
  async run(text, progressNote) {
    this.controller.abort();
    const controller = new AbortController();
    this.controller = controller;
    this.text = text;
    this.result = null;
    this.note.textContent = progressNote;
    try {
      const result = await this.send(textTail(text, this.getModel().n_ctx), controller.signal);
      if (controller.signal.aborted) return false;
      this.result = result;
      return true;
    } catch (error) {
      if (controller.signal.aborted) return false; // the text and the note now belong to a later request
      this.text = null;
      this.note.textContent = "";
      reportError(error);
      return false;
    }
  }

  /** Drop the result and cancel the request, because the model or the text has changed. */
  reset() {
    this.controller.abort();
    this.text = null;
    this.result = null;
  }
}
