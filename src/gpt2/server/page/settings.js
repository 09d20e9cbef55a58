// The settings: their ranges, their defaults, and the user's values, which the browser stores.

import { localStore } from "./storage.js";

export const SLIDERS = {
  length: { min: 1, max: 200, step: 1, initial: 20 },
  temperature: { min: 0, max: 2, step: 0.05, initial: 0.8 },
  top_k: { min: 0, max: 200, step: 1, initial: 40 },
  top_p: { min: 0.05, max: 1, step: 0.01, initial: 1 },
  repetition_penalty: { min: 1, max: 2, step: 0.05, initial: 1 },
  pause: { min: 0, max: 5, step: 0.5, initial: 0 },
};
const OTHER_DEFAULTS = {
  sentence: false,
  three: false,
  theme: "auto",
  model: null,
  language: (navigator.language ?? "en").toLowerCase().startsWith("de") ? "de" : "en",
};
const SLIDER_DEFAULTS = Object.fromEntries(Object.entries(SLIDERS).map(([name, slider]) => [name, slider.initial]));
const DEFAULTS = { ...SLIDER_DEFAULTS, ...OTHER_DEFAULTS };

/** Return the defaults, overridden by those stored values that are valid. */
function withStored(stored) {
  const values = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS)) {
    const value = stored?.[name];
    if (value !== undefined && isValid(name, value)) values[name] = value;
  }
  return values;
}

function isValid(name, value) {
  const slider = SLIDERS[name];
  if (slider) return value >= slider.min && value <= slider.max;
  return DEFAULTS[name] === null || typeof value === typeof DEFAULTS[name];
}

export const settings = withStored(localStore.get("settings"));
const listeners = [];

/** Change and store some settings, and call all listeners with the changed values. */
export function changeSettings(values) {
  Object.assign(settings, values);
  localStore.set("settings", settings);
  for (const listener of listeners) listener(values);
}

export function onSettingsChange(listener) {
  listeners.push(listener);
}

/** Reset the sliders and the check boxes to their defaults. Theme, model and language stay. */
export function resetSettings() {
  changeSettings({ ...SLIDER_DEFAULTS, sentence: false, three: false });
}

/** Return the sampling parameters of a completion request. */
export function samplingParameters() {
  const { temperature, top_k, top_p, repetition_penalty } = settings;
  return { temperature, top_k, top_p, repetition_penalty };
}
