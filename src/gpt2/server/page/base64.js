// Numbers that came as Base64, and the attention that they hold.

function bytes(text) {
  return Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer;
}

export const floats = (text) => new Float32Array(bytes(text));

/** Of one layer: how much each of `tokens` places takes from each up to itself, by head, or averaged over them (-1). */
export class Attention {
  constructor(text, tokens) {
    this.size = (tokens * (tokens + 1)) / 2;
    this.values = new Uint16Array(bytes(text));
    this.heads = this.values.length / this.size;
  }

  /** From 0 to 1: what place `from` takes from place `to`. */
  at(head, from, to) {
    const place = (from * (from + 1)) / 2 + to;
    if (head >= 0) return this.values[head * this.size + place] / 65535;
    let sum = 0;
    for (let each = 0; each < this.heads; each += 1) sum += this.values[each * this.size + place];
    return sum / this.heads / 65535;
  }
}
