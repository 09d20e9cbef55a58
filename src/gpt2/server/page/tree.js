// All states of a draft as a tree. Undo moves to the parent, redo to a child, and rejected alternatives stay as
// branches.
//
// A node is a change to the text of its parent: at the position `at`, `inserted` replaces `removed`. Node 0 is the empty
// text.

import { TextBuffer } from "./text_buffer.js";

const FORMAT = "gpt-2-draft";
const KINDS = ["begin", "typed", "written", "taken"];

export class Tree {
  constructor() {
    this.nodes = [{ parent: -1, at: 0, removed: "", inserted: "", kind: "begin" }];
    this.children = [[]];
    this.depths = [0]; // for each node, the number of changes between the empty text and it
    this.redoChildren = [-1]; // for each node, the child that redo moves to
    this.current = 0;
    this.text = "";
  }

  /** Return a tree from the value of its property `stored`. Throws an Error if the value is invalid. */
  static from(stored) {
    const hasNodes = Array.isArray(stored?.nodes) && stored.nodes.length;
    if (stored?.format !== FORMAT || !hasNodes) throw new Error("not a draft");
    const tree = new Tree();
    stored.nodes.slice(1).forEach((node, i) => {
      if (!isValidNode(node, i)) throw new Error(`invalid node ${i + 1}`);
      tree.#attach(node);
    });
    tree.#checkRemovedTexts();
    const latestChildren = tree.children.map((children) => children.at(-1) ?? -1);
    (stored.last ?? latestChildren).forEach((child, node) => {
      if (Number.isInteger(child) && tree.nodes[child]?.parent === node) tree.redoChildren[node] = child;
    });
    tree.goTo(Number.isInteger(stored.current) && tree.nodes[stored.current] ? stored.current : 0);
    return tree;
  }

  /** The value that is stored and exported. */
  get stored() {
    return { format: FORMAT, version: 1, current: this.current, last: this.redoChildren, nodes: this.nodes };
  }

  #attach({ parent, at, removed, inserted, kind }) {
    const node = this.nodes.push({ parent, at, removed, inserted, kind }) - 1;
    this.children.push([]);
    this.redoChildren.push(-1);
    this.depths.push(this.depths[parent] + 1);
    this.children[parent].push(node);
    return node;
  }

  /**
   * Throw an Error if the text that a node removes is not in the text of its parent. The walk goes down and up each
   * branch once, because a draft can have thousands of nodes; it starts and ends at the empty text.
   */
  #checkRemovedTexts() {
    const buffer = new TextBuffer("");
    const unvisited = this.children.map(() => null); // for each node on the way down, its children still to visit
    for (;;) {
      unvisited[this.current] ??= this.children[this.current].filter((child) => {
        const { at, removed } = this.nodes[child];
        if (!buffer.hasAt(removed, at)) throw new Error(`invalid node ${child}`);
        return this.children[child].length;
      });
      const next = unvisited[this.current].pop();
      if (next !== undefined) this.#moveDown(next, buffer);
      else if (this.current > 0) this.#moveUp(buffer);
      else return;
    }
  }

  /** Add a child to a node (by default the current one) and return it. An equal child is returned, not duplicated. */
  add(change, kind, parent = this.current) {
    const equalChild = this.children[parent].find((child) => isSameChange(this.nodes[child], change));
    return equalChild ?? this.#attach({ parent, ...change, kind });
  }

  /** Extend the change of the current node instead of adding a child. The node must not have children. */
  extendCurrent({ removed, inserted }) {
    const node = this.nodes[this.current];
    if (inserted) {
      const end = this.changeEnd(this.current);
      node.inserted += inserted;
      this.text = splice(this.text, end, 0, inserted);
    } else {
      node.at -= removed.length;
      node.removed = removed + node.removed;
      this.text = splice(this.text, node.at, removed.length, "");
    }
  }

  /** Move to a node, and make redo lead to it. Returns the position of the last change in the text. */
  goTo(target) {
    const nodesDown = [];
    let commonAncestor = this.current;
    for (let node = target; node !== commonAncestor;) {
      if (this.depths[node] >= this.depths[commonAncestor]) {
        nodesDown.push(node);
        node = this.nodes[node].parent;
      } else {
        commonAncestor = this.nodes[commonAncestor].parent;
      }
    }
    const buffer = new TextBuffer(this.text);
    let position = null;
    while (this.current !== commonAncestor) position = this.#moveUp(buffer);
    for (const node of nodesDown.reverse()) {
      this.redoChildren[this.current] = node;
      position = this.#moveDown(node, buffer);
    }
    this.text = buffer.toString();
    return position ?? this.changeEnd(target);
  }

  #moveUp(buffer) {
    const { at, removed, inserted, parent } = this.nodes[this.current];
    buffer.splice(at, inserted.length, removed);
    this.current = parent;
    return at + removed.length;
  }

  #moveDown(node, buffer) {
    const { at, removed, inserted } = this.nodes[node];
    buffer.splice(at, removed.length, inserted);
    this.current = node;
    return at + inserted.length;
  }

  /** Return the position in the text of a node at which its change ends. */
  changeEnd(node) {
    return this.nodes[node].at + this.nodes[node].inserted.length;
  }

  /** Return the nodes from the root to a node, by default the current one. */
  path(node = this.current) {
    const nodes = [];
    for (; node >= 0; node = this.nodes[node].parent) nodes.push(node);
    return nodes.reverse();
  }

  /** Return the node that repeated redo reaches from a node, by default the current one. */
  tip(node = this.current) {
    while (this.redoChildren[node] >= 0) node = this.redoChildren[node];
    return node;
  }

  get canUndo() {
    return this.current > 0;
  }

  get canRedo() {
    return this.redoChildren[this.current] >= 0;
  }

  /** Move to the parent. Returns the position of the change, or null if there is nothing to undo. */
  undo() {
    return this.canUndo ? this.goTo(this.nodes[this.current].parent) : null;
  }

  /** Move to the redo child. Returns the position of the change, or null if there is nothing to redo. */
  redo() {
    return this.canRedo ? this.goTo(this.redoChildren[this.current]) : null;
  }

  /** Return [node, children of its parent] for the nearest node on the path that has siblings, or null. */
  nearestFork() {
    for (let node = this.current; node > 0; node = this.nodes[node].parent) {
      const siblings = this.children[this.nodes[node].parent];
      if (siblings.length > 1) return [node, siblings];
    }
    return null;
  }
}

function isValidNode({ parent, at, removed, inserted, kind }, maxParent) {
  const hasParent = Number.isInteger(parent) && parent >= 0 && parent <= maxParent;
  const hasTexts = typeof removed === "string" && typeof inserted === "string";
  return hasParent && Number.isInteger(at) && at >= 0 && hasTexts && KINDS.includes(kind);
}

const isSameChange = (a, b) => a.at === b.at && a.removed === b.removed && a.inserted === b.inserted;

const splice = (text, at, count, inserted) => text.slice(0, at) + inserted + text.slice(at + count);

/** Return the single change that turns `before` into `after`. It starts at `hint` or earlier. */
export function difference(before, after, hint) {
  const minLength = Math.min(before.length, after.length);
  const maxPrefix = Math.min(minLength, hint);
  let at = 0;
  while (at < maxPrefix && before[at] === after[at]) at += 1;
  let suffix = 0;
  while (suffix < minLength - at && before.at(-1 - suffix) === after.at(-1 - suffix)) suffix += 1;
  return { at, removed: before.slice(at, before.length - suffix), inserted: after.slice(at, after.length - suffix) };
}
