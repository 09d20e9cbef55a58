// English and German: what the page says, wherever `data-say`, `data-say-label` or a module names it.

import { onChange, settings } from "./settings.js";
import { ENGLISH } from "./texts.en.js";
import { GERMAN } from "./texts.de.js";

const WORDS = { en: ENGLISH, de: GERMAN };
const listening = [];

/** The words of that name; `{name}` in them is replaced by a value. */
export function say(name, values = {}) {
  const words = WORDS[settings.language][name] ?? name;
  if (typeof words !== "string") return words;
  return words.replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}

export const number = (value) => value.toLocaleString(settings.language, { maximumFractionDigits: 2 });

/** Calls it now and whenever the language changes. */
export function onLanguage(call) {
  listening.push(call);
  call();
}

function show() {
  document.documentElement.lang = settings.language;
  document.title = say("title");
  for (const element of document.querySelectorAll("[data-say]")) element.textContent = say(element.dataset.say);
  for (const element of document.querySelectorAll("[data-say-label]")) {
    element.setAttribute("aria-label", say(element.dataset.sayLabel));
    if (element.tagName === "BUTTON") element.title = say(element.dataset.sayLabel);
  }
}

onLanguage(show);
onChange((changed) => {
  if ("language" in changed) for (const call of listening) call();
});
