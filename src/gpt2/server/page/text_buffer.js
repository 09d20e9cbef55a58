// A text in chunks, for many changes in a row. A change copies one chunk, not the whole text.

const MAX_CHUNK_LENGTH = 4096; // UTF-16 code units

export class TextBuffer {
  constructor(text) {
    this.length = text.length;
    this.chunks = split(text);
  }

  toString() {
    return this.chunks.join("");
  }

  /** Replace `count` code units at the position `at` with another text. */
  splice(at, count, inserted) {
    const [first, start] = this.#find(at);
    const [last, end] = this.#find(at + count);
    const chunk = this.chunks[first].slice(0, start) + inserted + this.chunks[last].slice(end);
    this.chunks.splice(first, last - first + 1, ...split(chunk));
    this.length += inserted.length - count;
  }

  /** Whether the text has `part` at the position `at`. */
  hasAt(part, at) {
    if (at + part.length > this.length) return false;
    let [index, start] = this.#find(at);
    for (let compared = 0; compared < part.length; index += 1) {
      const available = this.chunks[index].slice(start, start + part.length - compared);
      if (!part.startsWith(available, compared)) return false;
      compared += available.length;
      start = 0;
    }
    return true;
  }

  /** Return [index of its chunk, position in the chunk] for a position in the text. */
  #find(position) {
    let index = 0;
    let start = position;
    while (start > this.chunks[index].length) {
      start -= this.chunks[index].length;
      index += 1;
    }
    return [index, start];
  }
}

/** Return the chunks of a text. The empty text is one empty chunk. */
function split(text) {
  const chunks = [];
  for (let start = 0; start < text.length || !start; start += MAX_CHUNK_LENGTH) {
    chunks.push(text.slice(start, start + MAX_CHUNK_LENGTH));
  }
  return chunks;
}
