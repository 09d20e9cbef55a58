// All states of a draft as a tree. Undo moves to the parent, redo to a child, and rejected alternatives stay as
// branches.
//
// A node is a change to the text of its parent: at the position `at`, `inserted` replaces `removed`. Node 0 is the empty
// text.

const FORMAT = "gpt-2-draft";
const KINDS = ["begin", "typed", "written", "taken"];

export class Tree {
  constructor() {
    this.nodes = [{ parent: -1, at: 0, removed: "", inserted: "", kind: "begin" }];
    this.children = [[]];
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
    for (let node = 1; node < tree.nodes.length; node += 1) tree.#check(node);
    (stored.last ?? []).forEach((child, node) => {
      if (tree.children[node]?.includes(child)) tree.redoChildren[node] = child;
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
    this.children[parent].push(node);
    return node;
  }

  /** Throw an Error if the text that a node removes is not in the text of its parent. */
  #check(node) {
    this.goTo(this.nodes[node].parent);
    const { at, removed } = this.nodes[node];
    if (at > this.text.length || !this.text.startsWith(removed, at)) throw new Error(`invalid node ${node}`);
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
    const ancestors = new Set(this.path());
    let commonAncestor = target;
    for (; !ancestors.has(commonAncestor); commonAncestor = this.nodes[commonAncestor].parent) {
      nodesDown.unshift(commonAncestor);
    }
    let position = null;
    while (this.current !== commonAncestor) position = this.#moveUp();
    for (const node of nodesDown) position = this.#moveDown(node);
    for (let node = target; node > 0; node = this.nodes[node].parent) {
      this.redoChildren[this.nodes[node].parent] = node;
    }
    return position ?? this.changeEnd(target);
  }

  #moveUp() {
    const { at, removed, inserted, parent } = this.nodes[this.current];
    this.text = splice(this.text, at, inserted.length, removed);
    this.current = parent;
    return at + removed.length;
  }

  #moveDown(node) {
    const { at, removed, inserted } = this.nodes[node];
    this.text = splice(this.text, at, removed.length, inserted);
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
    for (; node >= 0; node = this.nodes[node].parent) nodes.unshift(node);
    return nodes;
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
  return hasParent && Number.isInteger(at) && hasTexts && KINDS.includes(kind);
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
