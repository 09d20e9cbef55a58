// What the server says of the text at hand, asked again only when it is another text.

import { told } from "./autopilot.js";
import { lastPart } from "./context.js";
import { $ } from "./dom.js";

export class Asked {
  /** model: what is known of the chosen one. ask: of text, api.js's. note: the id of the line that says what is going on. */
  constructor(model, ask, note) {
    Object.assign(this, { model, ask, note, text: null, found: null, asking: new AbortController() });
  }

  /** Whether something else is known now; what did not work is said. */
  async about(text, meanwhile) {
    this.asking.abort();
    const asking = this.asking = new AbortController();
    [this.text, this.found] = [text, null];
    $(this.note).textContent = meanwhile;
    try {
      const found = await this.ask(lastPart(text, this.model().n_ctx), asking.signal);
      if (asking.signal.aborted) return false;
      this.found = found;
      return true;
    } catch (error) {
      if (asking.signal.aborted) return false; // text and note are the later question's by now
      this.text = null;
      $(this.note).textContent = "";
      told(error);
      return false;
    }
  }

  /** What was found, or is on its way, is of another model or of no text. */
  forget() {
    this.asking.abort();
    [this.text, this.found] = [null, null];
  }
}
