// How a token is chosen: the model's own numbers under temperature, top-k and top-p.

import { twoBars } from "./bars.js";
import { dials } from "./sliders.js";
import { $ } from "./dom.js";
import { say } from "./language.js";
import { floats } from "./base64.js";
import { change, onChange, settings } from "./settings.js";
import { shaped } from "./distribution.js";

const SHOWN = 8; // tokens
const DIALED = ["temperature", "top_k", "top_p"];
const AS_IT_IS = { temperature: 1, top_k: 0, top_p: 1 };

export class ShapeCard {
  constructor() {
    this.found = null;
    const dialed = dials($("shape-dials"), DIALED, (name) => settings[name], (name, value) => change({ [name]: value }));
    onChange(() => { dialed(); this.#show(); });
  }

  open(found) {
    this.found = found;
    this.logits = floats(found.logits);
    this.before = shaped(this.logits, AS_IT_IS);
    this.#show();
  }

  #show() {
    if (!this.found) return;
    const { likeliest, pieces } = this.found;
    const after = shaped(this.logits, settings);
    const said = { n: after.length.toLocaleString(settings.language), all: this.logits.length.toLocaleString(settings.language) };
    $("shape-said").textContent = settings.temperature ? say("shape_said", said) : say("shape_greedy");
    twoBars($("shape"), likeliest.slice(0, SHOWN).map((id, i) => ({ piece: pieces[id], share: after[i] ?? 0, before: this.before[i] })));
  }
}
