// What keys do in the text area.

import { settings } from "./settings.js";

/** area: the text area of the editor. */
export function keys(editor, autopilot, choices) {
  let mayLeave = false; // after Escape, Tab goes where the browser takes it

  editor.area.addEventListener("blur", () => { mayLeave = false; });
  editor.area.addEventListener("keydown", (event) => {
    const left = mayLeave;
    if (event.key !== "Shift") mayLeave = false;
    if (event.isComposing) return;
    const done = pressed(event, left);
    if (done) event.preventDefault();
  });

  /** Whether the key has been used up. */
  function pressed(event, left) {
    const { key, shiftKey, altKey } = event;
    const control = event.ctrlKey || event.metaKey;
    if (key === "Tab") return !(shiftKey || control || altKey || left) && (goOn(), true);
    if (key === "Escape") return escape();
    if (key === "Enter" && control) return autopilot.goOn(true), true;
    if (key === "Enter" && altKey) return autopilot.offer(), true;
    if (control && key.toLowerCase() === "z") return (shiftKey ? editor.redo() : editor.undo()), true;
    if (control && key.toLowerCase() === "y") return editor.redo(), true;
    if (altKey && (key === "ArrowUp" || key === "ArrowDown")) return editor.sideways(key === "ArrowUp" ? -1 : 1), true;
    if (control || altKey) return false;
    if (choices.isOpen && /^[1-3]$/.test(key)) return choices.choose(Number(key) - 1), true;
    if (key === "Enter" && editor.hasSuggestion) return editor.keep(), true;
    if (/^(Arrow|Home|End|Page)/.test(key)) editor.stop(); // what it does to the selection, it does by itself
    return false;
  }

  function goOn() {
    if (settings.three) autopilot.offer();
    else autopilot.goOn();
  }

  function escape() {
    mayLeave = !editor.isSuggesting && !choices.isOpen;
    if (choices.isOpen) choices.dismiss();
    else if (editor.isSuggesting) editor.remove();
    return true;
  }
}
