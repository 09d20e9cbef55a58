// Elements: found by their id, made without a string of HTML ever being read.

export const $ = (id) => document.getElementById(id);

/** A new element; text is always text, whatever it holds. */
export function make(tag, { text, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

/** Calls it once, when nothing has called for it for so many milliseconds. */
export function after(milliseconds, call) {
  let timer;
  const later = (...given) => {
    clearTimeout(timer);
    timer = setTimeout(call, milliseconds, ...given);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}

/** One of a row of buttons is reached by Tab, the others from there by arrow keys. */
export function roving(container) {
  const all = () => [...container.querySelectorAll("button")];
  container.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const buttons = all();
    const at = buttons.indexOf(document.activeElement);
    const to = { Home: 0, End: buttons.length - 1 }[event.key] ?? (step && at + step);
    if (at < 0 || to === undefined || !buttons[to]) return;
    event.preventDefault();
    buttons[to].focus();
  });
  container.addEventListener("focusin", (event) => {
    for (const button of all()) button.tabIndex = button === event.target ? 0 : -1;
  });
}
