// Decodes the arrays that the server sends as Base64.

function decodeBytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer;
}

export const decodeFloats = (base64) => new Float32Array(decodeBytes(base64));

/** The attention weights of one layer, decoded from 16-bit integers: a lower triangle [T * (T + 1) / 2] per head. */
export class AttentionWeights {
  constructor(base64, tokenCount) {
    this.triangleSize = (tokenCount * (tokenCount + 1)) / 2;
    this.values = new Uint16Array(decodeBytes(base64));
    this.headCount = this.values.length / this.triangleSize;
  }

  /** Return the weight, from 0 to 1, with which position `from` attends to position `to`. Head -1 is the average. */
  get(head, from, to) {
    const index = (from * (from + 1)) / 2 + to;
    if (head >= 0) return this.values[head * this.triangleSize + index] / 65535;
    let sum = 0;
    for (let i = 0; i < this.headCount; i += 1) sum += this.values[i * this.triangleSize + index];
    return sum / this.headCount / 65535;
  }
}
