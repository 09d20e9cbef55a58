// Cancels a request that will never be answered, because the server hangs or the network is gone.

import { isServerAlive } from "./connection.js";

const SILENCE_MS = 5000; // after this time without data, the page checks the server's health

export class Watchdog {
  /** signal: cancels the request for any other reason. */
  constructor(signal) {
    this.controller = new AbortController();
    this.signal = AbortSignal.any([this.controller.signal, ...(signal ? [signal] : [])]);
    this.feed();
  }

  /** Restart the time, because data has arrived. */
  feed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#check(), SILENCE_MS);
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = null;
  }

  /** Cancel the request if the server does not answer its health check either. A busy server answers it. */
  async #check() {
    const { timer } = this;
    const isAlive = await isServerAlive();
    if (timer !== this.timer) return; // data has arrived, or the request has ended
    if (isAlive) this.feed();
    else this.controller.abort();
  }
}
