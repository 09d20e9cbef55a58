// Decodes the server-sent events of a response.

/** Yield the data of each event as parsed JSON, until `[DONE]`. Throws if the response ends before it. */
export async function* serverSentEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Error("the stream is incomplete");
      buffer += value;
      const events = buffer.split("\n\n");
      buffer = events.pop(); // the last event is incomplete
      for (const event of events) {
        if (!event.startsWith("data: ")) continue; // a comment, with which a proxy keeps the connection open
        const data = event.slice("data: ".length);
        if (data === "[DONE]") return;
        yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
