// The text area: the user's typing, the current suggestion, and the tree that records every state.
//
// A suggestion is selected text in the text area. The browser itself handles typing over it, deleting it and moving the
// cursor away; this module only interprets the result. The browser's undo ignores text that a program inserts, so the
// undo of the tree replaces it.

import { difference, Tree } from "./tree.js";

const MAX_PAUSE_MS = 1500; // longest pause between two keys of one undo step

export class Editor extends EventTarget {
  constructor(area) {
    super();
    this.area = area;
    this.tree = new Tree();
    this.suggestion = null;
    this.lastInputTime = 0;
    this.inputStart = 0; // where the selection started before the latest input
    this.isComposing = false; // an input method is composing a character; it counts once it is complete
    area.addEventListener("beforeinput", (event) => this.#beforeInput(event));
    area.addEventListener("input", (event) => this.isComposing || this.#undoOrRedo(event) || this.#recordInput());
    area.addEventListener("compositionstart", () => {
      this.#prepareInput();
      this.isComposing = true;
    });
    area.addEventListener("compositionend", () => {
      this.isComposing = false;
      this.#recordInput();
    });
    area.addEventListener("pointerdown", () => this.finishSuggestion());
    document.addEventListener("selectionchange", () => this.#selectionChanged());
  }

  /** Show the draft of a tree, with the cursor at its end. */
  open(tree) {
    this.finishSuggestion();
    this.suggestion = null;
    this.tree = tree;
    this.#showText(tree.text.length);
  }

  get text() {
    return this.area.value;
  }

  /** Whether the selection is exactly the suggestion, which may still be empty. */
  get isSuggestionSelected() {
    const { suggestion, area } = this;
    return suggestion !== null && area.selectionStart === suggestion.start && area.selectionEnd === suggestion.end;
  }

  /** Whether there is a suggestion with text to accept. */
  get hasSuggestion() {
    return this.isSuggestionSelected && this.suggestion.end > this.suggestion.start;
  }

  /**
   * Start a suggestion that replaces the selection, or the suggestion already in the text, and return it.
   * abort: cancels the request that streams the suggestion.
   */
  beginSuggestion(abort) {
    this.finishSuggestion();
    if (this.isSuggestionSelected) this.#restore(this.suggestion);
    this.suggestion = null;
    const { selectionStart: start, selectionEnd: end } = this.area;
    const removed = this.tree.text.slice(start, end);
    this.suggestion = { base: this.tree.current, start, end, removed, abort, isStreaming: true };
    this.#notifyChange();
    return this.suggestion;
  }

  /** Return the text before a suggestion. */
  textBefore(suggestion) {
    return this.area.value.slice(0, suggestion.start);
  }

  /** Show the whole text of a suggestion so far. Returns false if the suggestion is no longer active. */
  updateSuggestion(suggestion, text) {
    if (this.suggestion !== suggestion || !suggestion.isStreaming) return false;
    if (!this.isSuggestionSelected) {
      this.finishSuggestion();
      return false;
    }
    this.area.setRangeText(text, suggestion.start, suggestion.end, "select");
    suggestion.end = suggestion.start + text.length;
    this.#scrollTo(suggestion.end);
    this.#notifyChange();
    return true;
  }

  /** Stop streaming the suggestion and record its text as a state of the draft. */
  finishSuggestion() {
    const { suggestion, tree } = this;
    if (!suggestion?.isStreaming) return;
    suggestion.isStreaming = false;
    suggestion.abort();
    const { base, start, end, removed } = suggestion;
    const inserted = this.area.value.slice(start, end);
    if (inserted === removed) this.suggestion = null;
    else tree.goTo(tree.add({ at: start, removed, inserted }, "written", base));
    this.#notifyChange();
  }

  /** Keep the text of the suggestion and move the cursor to its end. */
  acceptSuggestion() {
    this.finishSuggestion();
    if (!this.suggestion) return;
    this.area.setSelectionRange(this.suggestion.end, this.suggestion.end);
    this.#clearSuggestion();
  }

  /** Restore the text as it was before the suggestion. */
  discardSuggestion() {
    this.finishSuggestion();
    if (!this.suggestion) return;
    this.#restore(this.suggestion);
    this.#clearSuggestion();
  }

  /** Replace the text from start to end, as a new state of the draft. */
  replace(start, end, text, kind = "taken") {
    this.finishSuggestion();
    const change = { at: start, removed: this.tree.text.slice(start, end), inserted: text };
    this.goTo(change.removed === text ? this.tree.current : this.tree.add(change, kind));
  }

  undo() {
    this.finishSuggestion();
    this.#showState(this.tree.undo());
  }

  redo() {
    this.finishSuggestion();
    this.#showState(this.tree.redo());
  }

  goTo(node) {
    this.finishSuggestion();
    this.#showState(this.tree.goTo(node));
  }

  /** Switch to the previous (-1) or next (1) alternative at the nearest fork, and follow it to its latest state. */
  switchAlternative(step) {
    const fork = this.tree.nearestFork();
    if (!fork) return;
    const [node, siblings] = fork;
    const index = (siblings.indexOf(node) + step + siblings.length) % siblings.length;
    this.goTo(this.tree.tip(siblings[index]));
  }

  /** Show the current state of the tree. cursor: null leaves the cursor where it is. */
  #showState(cursor) {
    this.#showText(cursor ?? this.area.selectionStart);
    this.#clearSuggestion();
  }

  #restore({ base, start, removed }) {
    this.tree.goTo(base);
    this.area.value = this.tree.text;
    this.area.setSelectionRange(start, start + removed.length);
  }

  #showText(cursor) {
    this.area.value = this.tree.text;
    this.area.setSelectionRange(cursor, cursor);
    this.#scrollTo(cursor);
    this.#notifyChange();
  }

  /** Scroll to the end of the text. Browsers follow the user's typing, but not text that a program inserts. */
  #scrollTo(position) {
    if (position === this.area.value.length) this.area.scrollTop = this.area.scrollHeight;
  }

  /** Treat a suggestion as part of the text once the user has moved the selection elsewhere. */
  #selectionChanged() {
    const isFinished = this.suggestion && !this.isComposing && !this.suggestion.isStreaming;
    if (isFinished && !this.isSuggestionSelected) this.#clearSuggestion();
  }

  #beforeInput(event) {
    if (event.cancelable && this.#undoOrRedo(event)) event.preventDefault();
    else if (!this.isComposing) this.#prepareInput();
  }

  /** Use the undo or redo of the tree in place of the browser's. Returns whether the event was undo or redo. */
  #undoOrRedo({ inputType }) {
    if (inputType === "historyUndo") this.undo();
    else if (inputType === "historyRedo") this.redo();
    else return false;
    return true;
  }

  #prepareInput() {
    this.finishSuggestion();
    if (!this.isSuggestionSelected) this.suggestion = null;
    this.inputStart = this.area.selectionStart;
  }

  #recordInput() {
    const { tree, suggestion } = this;
    if (suggestion) tree.goTo(suggestion.base); // typing over a suggestion creates an alternative to it
    this.suggestion = null;
    const change = difference(tree.text, this.area.value, this.inputStart);
    if (change.removed || change.inserted) {
      if (this.#continuesStep(change)) tree.extendCurrent(change);
      else tree.goTo(tree.add(change, "typed"));
    }
    this.lastInputTime = Date.now();
    this.#clearSuggestion();
    this.dispatchEvent(new Event("typed"));
  }

  /** Whether a change belongs to the current undo step: the same word, or the same run of deletions. */
  #continuesStep({ at, removed, inserted }) {
    const { tree } = this;
    const node = tree.nodes[tree.current];
    if (node.kind !== "typed" || tree.children[tree.current].length) return false;
    if (Date.now() - this.lastInputTime > MAX_PAUSE_MS) return false;
    if (removed && inserted) return false;
    if (removed) return !node.inserted && at + removed.length === node.at;
    const startsWord = /\s$/.test(node.inserted) && /^\S/.test(inserted);
    return !node.removed && at === tree.changeEnd(tree.current) && !startsWord;
  }

  #clearSuggestion() {
    this.suggestion = null;
    this.#notifyChange();
  }

  #notifyChange() {
    this.dispatchEvent(new Event("change"));
  }
}
