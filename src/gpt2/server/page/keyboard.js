// Keyboard shortcuts of the text area.

import { settings } from "./settings.js";

/** Add the shortcuts to the text area of the editor. */
export function addShortcuts(editor, autopilot, choices) {
  let tabLeaves = false; // after Escape, Tab moves the focus as usual

  editor.area.addEventListener("blur", () => { tabLeaves = false; });
  editor.area.addEventListener("keydown", (event) => {
    const isTabFree = tabLeaves;
    if (event.key !== "Shift") tabLeaves = false;
    if (event.isComposing) return;
    if (handleKey(event, isTabFree)) event.preventDefault();
  });

  /** Run the shortcut of a key. Returns true if the browser should not handle the key. */
  function handleKey(event, isTabFree) {
    const { key, shiftKey, altKey, repeat } = event; // a held key requests one continuation
    const isControl = event.ctrlKey || event.metaKey;
    if (key === "Tab") {
      if (shiftKey || isControl || altKey || isTabFree) return false;
      return repeat || continueOrShowChoices(), true;
    }
    if (key === "Escape") return escape(), true;
    if (key === "Enter" && isControl) return repeat || autopilot.continueText(true), true;
    if (key === "Enter" && altKey) return repeat || autopilot.showChoices(), true;
    if (event.code === "KeyR" && altKey && !isControl) return repeat || autopilot.tryAgain(), true;
    if (isControl && key.toLowerCase() === "z") return (shiftKey ? editor.redo() : editor.undo()), true;
    if (isControl && key.toLowerCase() === "y") return editor.redo(), true;
    if (altKey && key === "ArrowUp") return editor.switchAlternative(-1), true;
    if (altKey && key === "ArrowDown") return editor.switchAlternative(1), true;
    if (isControl || altKey) return false;
    if (choices.isOpen && /^[1-3]$/.test(key)) return choices.choose(Number(key) - 1), true;
    if (key === "Enter" && editor.hasSuggestion) return editor.acceptSuggestion(), true;
    if (/^(Arrow|Home|End|Page)/.test(key)) editor.finishSuggestion(); // the browser then moves the cursor
    return false;
  }

  function continueOrShowChoices() {
    if (settings.three) autopilot.showChoices();
    else autopilot.continueText();
  }

  function escape() {
    tabLeaves = !editor.isSuggestionSelected && !choices.isOpen;
    if (choices.isOpen) choices.dismiss();
    else if (editor.isSuggestionSelected) editor.discardSuggestion();
  }
}
