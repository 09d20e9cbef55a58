// The texts of the page in English and German, by the name in `data-text`, `data-label` or a call of `translate`.

import { onSettingsChange, settings } from "./settings.js";
import { GERMAN } from "./texts.de.js";
import { ENGLISH } from "./texts.en.js";

const TEXTS = { en: ENGLISH, de: GERMAN };
const listeners = [];

/** Return the text with this name, with each `{placeholder}` replaced by its value. Unknown names return unchanged. */
export function translate(name, values = {}) {
  const text = TEXTS[settings.language][name] ?? name;
  if (typeof text !== "string") return text; // the list of keyboard shortcuts
  return text.replace(/\{(\w+)\}/g, (_, placeholder) => values[placeholder] ?? "");
}

export const formatNumber = (value) => value.toLocaleString(settings.language, { maximumFractionDigits: 2 });

/** Call the listener now and whenever the language changes. */
export function onLanguageChange(listener) {
  listeners.push(listener);
  listener();
}

function updateDocument() {
  document.documentElement.lang = settings.language;
  document.title = translate("title");
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = translate(element.dataset.text);
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    const label = translate(element.dataset.label);
    element.setAttribute("aria-label", label);
    if (element.tagName === "BUTTON") element.title = label;
  }
}

onLanguageChange(updateDocument);
onSettingsChange((changed) => {
  if ("language" in changed) for (const listener of listeners) listener();
});
