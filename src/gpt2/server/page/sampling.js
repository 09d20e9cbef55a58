// The sampling panel: the model's distribution before and after temperature, top-k and top-p.

import { showComparisonBars } from "./bars.js";
import { decodeFloats } from "./base64.js";
import { filterProbabilities } from "./distribution.js";
import { $ } from "./dom.js";
import { translate } from "./language.js";
import { changeSettings, onSettingsChange, settings } from "./settings.js";
import { addSliders } from "./sliders.js";

const MAX_BARS = 8;
const SLIDER_NAMES = ["temperature", "top_k", "top_p"];
const UNFILTERED = { temperature: 1, top_k: 0, top_p: 1 };

export class SamplingCard {
  constructor() {
    this.insight = null;
    const getValue = (name) => settings[name];
    const setValue = (name, value) => changeSettings({ [name]: value });
    const updateSliders = addSliders($("sampling-sliders"), SLIDER_NAMES, getValue, setValue);
    onSettingsChange(() => {
      updateSliders();
      this.#show();
    });
  }

  /** Show the distribution at the end of the text, for a response of /insight/layers. */
  open(insight) {
    this.insight = insight;
    this.logits = decodeFloats(insight.logits);
    this.originalShares = filterProbabilities(this.logits, UNFILTERED);
    this.#show();
  }

  #show() {
    if (!this.insight) return;
    const { likeliest, pieces } = this.insight;
    const shares = filterProbabilities(this.logits, settings);
    const counts = {
      n: shares.length.toLocaleString(settings.language),
      all: this.logits.length.toLocaleString(settings.language),
    };
    const captionName = settings.temperature ? "sampling_caption" : "sampling_greedy";
    $("sampling-caption").textContent = translate(captionName, counts);
    showComparisonBars($("sampling-bars"), likeliest.slice(0, MAX_BARS).map((id, i) => ({
      piece: pieces[id],
      share: shares[i] ?? 0,
      originalShare: this.originalShares[i],
    })));
  }
}
