// Settings: their ranges, their defaults, and what was chosen, which the browser keeps.

import { local } from "./storage.js";

export const DIALS = {
  length: { least: 1, most: 200, step: 1, usual: 20 },
  temperature: { least: 0, most: 2, step: 0.05, usual: 0.8 },
  top_k: { least: 0, most: 200, step: 1, usual: 40 },
  top_p: { least: 0.05, most: 1, step: 0.01, usual: 1 },
  repetition_penalty: { least: 1, most: 2, step: 0.05, usual: 1 },
  pause: { least: 0, most: 5, step: 0.5, usual: 0 },
};
const OTHERS = {
  sentence: false,
  three: false,
  theme: "auto",
  model: null,
  language: (navigator.language ?? "en").toLowerCase().startsWith("de") ? "de" : "en",
};
const USUAL = { ...Object.fromEntries(Object.entries(DIALS).map(([name, dial]) => [name, dial.usual])), ...OTHERS };

function known(stored) {
  const values = { ...USUAL };
  for (const [name, usual] of Object.entries(USUAL)) {
    const value = stored?.[name];
    const dial = DIALS[name];
    const fits = dial ? value >= dial.least && value <= dial.most : usual === null || typeof value === typeof usual;
    if (value !== undefined && fits) values[name] = value;
  }
  return values;
}

export const settings = known(local.get("settings"));
const listening = [];

/** Changes some of them; all who listen are told. */
export function change(values) {
  Object.assign(settings, values);
  local.set("settings", settings);
  for (const call of listening) call(values);
}

export function onChange(call) {
  listening.push(call);
}

/** The dials as they came. */
export function reset() {
  change({ ...Object.fromEntries(Object.keys(DIALS).map((name) => [name, USUAL[name]])), sentence: false, three: false });
}

/** What of them a completion is asked with. */
export function sampling() {
  const { temperature, top_k, top_p, repetition_penalty } = settings;
  return { temperature, top_k, top_p, repetition_penalty };
}
