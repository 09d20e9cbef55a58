// Sliders with their names, values and what they do.

import { make } from "./dom.js";
import { onLanguage, number, say } from "./language.js";
import { DIALS } from "./settings.js";

/** Sliders into a container. get: a name's value. set: told of a new one. Returns what shows the values anew. */
export function dials(container, names, get, set) {
  const show = names.map((name) => {
    const { least, most, step } = DIALS[name];
    const id = `${container.id}-${name}`;
    const label = make("label", { for: id });
    const value = make("output", { for: id });
    const slider = make("input", { type: "range", id, min: least, max: most, step, "aria-describedby": `${id}-about` });
    const about = make("small", { id: `${id}-about` });
    slider.addEventListener("input", () => set(name, Number(slider.value)));
    container.append(make("div", { class: "dial" }, label, value, slider, about));
    return () => {
      slider.value = get(name);
      label.textContent = say(name);
      about.textContent = say(`${name}_about`);
      const isOff = (["top_k", "pause"].includes(name) && get(name) === 0)
        || (["top_p", "repetition_penalty"].includes(name) && get(name) === 1);
      value.textContent = isOff ? say("off") : number(get(name));
      slider.setAttribute("aria-valuetext", value.textContent);
    };
  });
  const all = () => show.forEach((one) => one());
  onLanguage(all);
  return all;
}
