// The text area: what is typed, what is suggested, and the tree in which every state is kept.
//
// A suggestion stands in the text as its selection. Typing over it, deleting it and leaving it are the browser's own;
// here is only understood what they mean. The browser's undo does not know of text that a program sets, so the tree's
// takes its place.

import { difference, Tree } from "./tree.js";

const TOGETHER = 1500; // milliseconds between keys of one step of undo

export class Editor extends EventTarget {
  constructor(area) {
    super();
    this.area = area;
    this.tree = new Tree();
    this.suggestion = null;
    this.typed = 0; // when the last key was
    this.before = 0; // where the selection began before it
    this.isComposing = false; // a character out of several keys, which counts when it is whole
    area.addEventListener("beforeinput", (event) => this.#beforeInput(event));
    area.addEventListener("input", (event) => this.isComposing || this.#history(event) || this.#input());
    area.addEventListener("compositionstart", () => { this.#begun(); this.isComposing = true; });
    area.addEventListener("compositionend", () => { this.isComposing = false; this.#input(); });
    area.addEventListener("pointerdown", () => this.stop());
    document.addEventListener("selectionchange", () => this.#selected());
  }

  /** Shows a draft; the cursor at its end. */
  open(tree) {
    this.stop();
    this.suggestion = null;
    this.tree = tree;
    this.#show(tree.text.length);
  }

  get text() {
    return this.area.value;
  }

  /** Whether the selection is what was suggested. */
  get isSuggesting() {
    const { suggestion, area } = this;
    return suggestion !== null && area.selectionStart === suggestion.start && area.selectionEnd === suggestion.end;
  }

  /** Whether there is something to keep. */
  get hasSuggestion() {
    return this.isSuggesting && this.suggestion.end > this.suggestion.start;
  }

  /** Begins a suggestion in place of the selection, or of the suggestion that stands there. stop: ends its asking. */
  begin(stop) {
    this.stop();
    if (this.isSuggesting) this.#take(this.suggestion.base);
    this.suggestion = null;
    const { selectionStart: start, selectionEnd: end } = this.area;
    const removed = this.tree.text.slice(start, end);
    this.suggestion = { base: this.tree.current, start, end, removed, stop, isWriting: true };
    this.#tell();
    return this.suggestion;
  }

  /** What stands before a suggestion. */
  prefix(suggestion) {
    return this.area.value.slice(0, suggestion.start);
  }

  /** All of the suggestion so far; false if it is no longer wanted. */
  suggest(suggestion, text) {
    if (this.suggestion !== suggestion || !suggestion.isWriting) return false;
    if (!this.isSuggesting) {
      this.stop();
      return false;
    }
    this.area.setRangeText(text, suggestion.start, suggestion.end, "select");
    suggestion.end = suggestion.start + text.length;
    this.#seen(suggestion.end);
    this.#tell();
    return true;
  }

  /** No more comes of the suggestion: what is there is a state of the draft. */
  stop() {
    const { suggestion, tree } = this;
    if (!suggestion?.isWriting) return;
    suggestion.isWriting = false;
    suggestion.stop();
    const { base, start, end, removed } = suggestion;
    const inserted = this.area.value.slice(start, end);
    if (inserted === removed) this.suggestion = null;
    else tree.go(tree.add({ at: start, removed, inserted }, "written", base));
    this.#tell();
  }

  /** Keeps the suggestion, the cursor behind it. */
  keep() {
    this.stop();
    if (!this.suggestion) return;
    this.area.setSelectionRange(this.suggestion.end, this.suggestion.end);
    this.#settled();
  }

  /** Puts back what stood there before the suggestion. */
  remove() {
    this.stop();
    const { suggestion } = this;
    if (!suggestion) return;
    this.#take(suggestion.base);
    this.#settled();
  }

  /** Changes the text by itself, as a state of its own: [start, end] gives way to text. */
  replace(start, end, text, kind = "taken") {
    this.stop();
    const change = { at: start, removed: this.tree.text.slice(start, end), inserted: text };
    this.go(change.removed === text ? this.tree.current : this.tree.add(change, kind));
  }

  undo() {
    this.stop();
    this.#walked(this.tree.undo());
  }

  redo() {
    this.stop();
    this.#walked(this.tree.redo());
  }

  go(node) {
    this.stop();
    this.#walked(this.tree.go(node));
  }

  /** The alternative before (-1) or after (1) the one at the nearest fork, and all that came of it. */
  sideways(step) {
    const fork = this.tree.fork();
    if (!fork) return;
    const [node, siblings] = fork;
    this.go(this.tree.tip(siblings[(siblings.indexOf(node) + step + siblings.length) % siblings.length]));
  }

  #walked(place) {
    this.#show(place ?? this.area.selectionStart);
    this.#settled();
  }

  #take(base) {
    this.tree.go(base);
    const { start, removed } = this.suggestion;
    this.area.value = this.tree.text;
    this.area.setSelectionRange(start, start + removed.length);
  }

  #show(place) {
    this.area.value = this.tree.text;
    this.area.setSelectionRange(place, place);
    this.#seen(place);
    this.#tell();
  }

  /** Browsers scroll to what is typed, not to what a program writes. */
  #seen(place) {
    if (place === this.area.value.length) this.area.scrollTop = this.area.scrollHeight;
  }

  /** A suggestion that the selection has left is part of the text. */
  #selected() {
    if (this.suggestion && !this.isComposing && !this.suggestion.isWriting && !this.isSuggesting) this.#settled();
  }

  #beforeInput(event) {
    if (event.cancelable && this.#history(event)) event.preventDefault();
    else if (!this.isComposing) this.#begun();
  }

  /** The tree's undo or redo in place of the browser's, be it about to happen or done; whether it is one. */
  #history({ inputType }) {
    if (inputType === "historyUndo") this.undo();
    else if (inputType === "historyRedo") this.redo();
    else return false;
    return true;
  }

  /** Something is about to be typed. */
  #begun() {
    this.stop();
    if (!this.isSuggesting) this.suggestion = null;
    this.before = this.area.selectionStart;
  }

  #input() {
    const { tree, suggestion } = this;
    if (suggestion) tree.go(suggestion.base); // it was written over: what is typed stands beside it
    this.suggestion = null;
    const change = difference(tree.text, this.area.value, this.before);
    if (change.removed || change.inserted) {
      if (this.#belongs(change)) tree.grow(change);
      else tree.go(tree.add(change, "typed"));
    }
    this.typed = Date.now();
    this.#settled();
    this.dispatchEvent(new Event("typed"));
  }

  /** Whether a change is of one step with the one before it: the same word, the same run of deletions. */
  #belongs({ at, removed, inserted }) {
    const { tree } = this;
    const node = tree.nodes[tree.current];
    if (node.kind !== "typed" || tree.children[tree.current].length || Date.now() - this.typed > TOGETHER) return false;
    if (removed && inserted) return false;
    if (removed) return !node.inserted && at + removed.length === node.at;
    const isNewWord = /\s$/.test(node.inserted) && /^\S/.test(inserted);
    return !node.removed && at === tree.end(tree.current) && !isNewWord;
  }

  #settled() {
    this.suggestion = null;
    this.#tell();
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }
}
