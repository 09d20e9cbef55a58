// Helpers for elements. No HTML is ever parsed from a string.

export const $ = (id) => document.getElementById(id);

/** Return a new element. `text` becomes its text content; true, false, undefined and null set or omit an attribute. */
export function createElement(tag, { text, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

/** Return a debounced function: it runs once no further call has come for the given time. */
export function debounce(milliseconds, callback) {
  let timer;
  const debounced = (...args) => {
    clearTimeout(timer);
    timer = setTimeout(callback, milliseconds, ...args);
  };
  debounced.cancel = () => clearTimeout(timer);
  return debounced;
}

/**
 * Return a function that scrolls a container, and not the page, so that the element of `getElement` is visible in it.
 * The function also runs whenever the container is resized or appears.
 */
export function keepInView(container, getElement) {
  const scroll = () => {
    const element = getElement();
    if (!element || !container.clientHeight) return;
    const box = element.getBoundingClientRect();
    const top = box.top - container.getBoundingClientRect().top - container.clientTop;
    const isVisible = top >= 0 && top + box.height <= container.clientHeight;
    if (!isVisible) container.scrollTop += top - (container.clientHeight - box.height) / 2;
  };
  new ResizeObserver(scroll).observe(container);
  return scroll;
}

/** Make Tab reach only one button of a container, and let the arrow keys move between its buttons. */
export function addRovingFocus(container) {
  const getButtons = () => [...container.querySelectorAll("button")];
  container.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const buttons = getButtons();
    const index = buttons.indexOf(document.activeElement);
    const newIndex = { Home: 0, End: buttons.length - 1 }[event.key] ?? (step && index + step);
    if (index < 0 || newIndex === undefined || !buttons[newIndex]) return;
    event.preventDefault();
    buttons[newIndex].focus();
  });
  container.addEventListener("focusin", (event) => {
    for (const button of getButtons()) button.tabIndex = button === event.target ? 0 : -1;
  });
}
