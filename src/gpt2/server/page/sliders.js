// Sliders with a name, a value and a description.

import { createElement } from "./dom.js";
import { formatNumber, onLanguageChange, translate } from "./language.js";
import { SLIDERS } from "./settings.js";

const OFF_VALUES = { top_k: 0, pause: 0, top_p: 1, repetition_penalty: 1 };

/**
 * Add sliders to a container and return a function that updates the values shown.
 * getValue: returns the value of a name. setValue: called with a name and the new value.
 */
export function addSliders(container, names, getValue, setValue) {
  const updates = names.map((name) => {
    const { min, max, step } = SLIDERS[name];
    const id = `${container.id}-${name}`;
    const label = createElement("label", { for: id });
    const output = createElement("output", { for: id });
    const input = createElement("input", { type: "range", id, min, max, step, "aria-describedby": `${id}-about` });
    const about = createElement("small", { id: `${id}-about` });
    input.addEventListener("input", () => setValue(name, Number(input.value)));
    container.append(createElement("div", { class: "slider" }, label, output, input, about));
    return () => {
      const value = getValue(name);
      input.value = value;
      label.textContent = translate(name);
      about.textContent = translate(`${name}_about`);
      output.textContent = value === OFF_VALUES[name] ? translate("off") : formatNumber(value);
      input.setAttribute("aria-valuetext", output.textContent);
    };
  });
  const updateAll = () => updates.forEach((update) => update());
  onLanguageChange(updateAll);
  return updateAll;
}
