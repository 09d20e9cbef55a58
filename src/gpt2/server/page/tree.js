// All states of a draft, as a tree: undo walks up, redo down, and what was not chosen is a branch beside.
//
// A node is a change of its parent's text: at `at`, `removed` gives way to `inserted`. Node 0 is the empty text.

export const FORMAT = "gpt-2-draft";
const KINDS = ["begin", "typed", "written", "taken"];

export class Tree {
  constructor() {
    this.nodes = [{ parent: -1, at: 0, removed: "", inserted: "", kind: "begin" }];
    this.children = [[]];
    this.last = [-1]; // of each node the child that redo leads to
    this.current = 0;
    this.text = "";
  }

  /** A tree from what `stored` gave. Throws an error for anything else. */
  static from(stored) {
    if (stored?.format !== FORMAT || !Array.isArray(stored.nodes) || !stored.nodes.length) throw new Error("no draft");
    const tree = new Tree();
    stored.nodes.slice(1).forEach((node, i) => {
      const isWhole = Number.isInteger(node.parent) && node.parent >= 0 && node.parent <= i && Number.isInteger(node.at)
        && typeof node.removed === "string" && typeof node.inserted === "string" && KINDS.includes(node.kind);
      if (!isWhole) throw new Error(`node ${i + 1}`);
      tree.#attach(node);
    });
    for (let node = 1; node < tree.nodes.length; node += 1) tree.#check(node);
    (stored.last ?? []).forEach((child, node) => {
      if (tree.children[node]?.includes(child)) tree.last[node] = child;
    });
    tree.go(Number.isInteger(stored.current) && tree.nodes[stored.current] ? stored.current : 0);
    return tree;
  }

  /** What is kept and exported. */
  get stored() {
    return { format: FORMAT, version: 1, current: this.current, last: this.last, nodes: this.nodes };
  }

  #attach({ parent, at, removed, inserted, kind }) {
    const node = this.nodes.push({ parent, at, removed, inserted, kind }) - 1;
    this.children.push([]);
    this.last.push(-1);
    this.children[parent].push(node);
    return node;
  }

  /** That what a node removes is there: by walking to it. */
  #check(node) {
    this.go(this.nodes[node].parent);
    const { at, removed } = this.nodes[node];
    if (at > this.text.length || !this.text.startsWith(removed, at)) throw new Error(`node ${node}`);
  }

  /** A new state after a node, the current one unless another is given; one that is there already is not made twice. */
  add(change, kind, parent = this.current) {
    const twin = this.children[parent].find((child) => same(this.nodes[child], change));
    return twin ?? this.#attach({ parent, ...change, kind });
  }

  /** Lets the current state go further without a step of its own: nothing must follow from it. */
  grow({ removed, inserted }) {
    const node = this.nodes[this.current];
    if (inserted) {
      node.inserted += inserted;
      this.text = splice(this.text, node.at + node.inserted.length - inserted.length, 0, inserted);
    } else {
      node.at -= removed.length;
      node.removed = removed + node.removed;
      this.text = splice(this.text, node.at, removed.length, "");
    }
  }

  /** Walks to a node; redo leads back along the way. Returns where in the text the last change was. */
  go(target) {
    const down = [];
    const ancestors = new Set(this.path());
    let meeting = target;
    for (; !ancestors.has(meeting); meeting = this.nodes[meeting].parent) down.unshift(meeting);
    let place = null;
    while (this.current !== meeting) place = this.#up();
    for (const node of down) place = this.#down(node);
    for (let node = target; node > 0; node = this.nodes[node].parent) this.last[this.nodes[node].parent] = node;
    return place ?? this.end(target);
  }

  #up() {
    const { at, removed, inserted, parent } = this.nodes[this.current];
    this.text = splice(this.text, at, inserted.length, removed);
    this.current = parent;
    return at + removed.length;
  }

  #down(node) {
    const { at, removed, inserted } = this.nodes[node];
    this.text = splice(this.text, at, removed.length, inserted);
    this.current = node;
    return at + inserted.length;
  }

  /** Where the change of a node ends in its text. */
  end(node) {
    return this.nodes[node].at + this.nodes[node].inserted.length;
  }

  /** From the beginning to the current node. */
  path(node = this.current) {
    const nodes = [];
    for (; node >= 0; node = this.nodes[node].parent) nodes.unshift(node);
    return nodes;
  }

  /** Where redo would end. */
  tip(node = this.current) {
    while (this.last[node] >= 0) node = this.last[node];
    return node;
  }

  get canUndo() {
    return this.current > 0;
  }

  get canRedo() {
    return this.last[this.current] >= 0;
  }

  undo() {
    return this.canUndo ? this.go(this.nodes[this.current].parent) : null;
  }

  redo() {
    return this.canRedo ? this.go(this.last[this.current]) : null;
  }

  /** The nearest place at or above the current node where there is a choice: [the node there, its siblings]. */
  fork() {
    for (let node = this.current; node > 0; node = this.nodes[node].parent) {
      const siblings = this.children[this.nodes[node].parent];
      if (siblings.length > 1) return [node, siblings];
    }
    return null;
  }
}

const same = (a, b) => a.at === b.at && a.removed === b.removed && a.inserted === b.inserted;

export const splice = (text, at, count, inserted) => text.slice(0, at) + inserted + text.slice(at + count);

/** The one change that makes `before` into `after`; it begins at `hint` or before it. */
export function difference(before, after, hint) {
  const most = Math.min(before.length, after.length);
  let at = 0;
  while (at < Math.min(most, hint) && before[at] === after[at]) at += 1;
  let tail = 0;
  while (tail < most - at && before.at(-1 - tail) === after.at(-1 - tail)) tail += 1;
  return { at, removed: before.slice(at, before.length - tail), inserted: after.slice(at, after.length - tail) };
}
