// The tree as one walks it: the way through the draft from its beginning, and what stands beside each step of it.

import { $, make } from "./dom.js";
import { onLanguage, say } from "./language.js";

const SHOWN = 60; // characters of a step
const MOST = 80; // steps, the last ones

export function branches(editor) {
  const list = $("branch-list");
  let waiting = false;

  const soon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; show(); });
  };
  editor.addEventListener("change", soon);
  onLanguage(soon);

  function show() {
    const { tree } = editor;
    const passed = new Set(tree.path());
    const items = steps(tree).slice(-MOST).flatMap((step) => {
      const beside = siblings(tree, step[0]).map((node) => item(tree, run(tree, node), tree.tip(node), "beside"));
      const kind = step.includes(tree.current) ? "here" : passed.has(step[0]) ? "on" : "ahead";
      return [...beside, item(tree, step, step.at(-1), kind)];
    });
    list.replaceChildren(...items);
    const current = list.querySelector("[aria-current]");
    if (current) list.scrollTop = current.offsetTop - list.clientHeight / 2; // the list alone, not the page
  }

  function item(tree, step, target, kind) {
    const button = make("button", { type: "button", "aria-current": kind === "here" && "step" },
      make("span", { text: label(tree, step) }));
    const more = kind === "beside" ? descendants(tree, step.at(-1)) : 0;
    if (more) button.append(make("small", { text: say("branch_more", { n: more }) }));
    button.addEventListener("click", () => {
      editor.go(target);
      list.querySelector("[aria-current]")?.focus();
    });
    return make("li", { class: kind }, button);
  }
}

/** The way to where redo would end: runs of nodes, each of one kind, with nothing beside any but its first. */
export function steps(tree) {
  const runs = [];
  let kind = null;
  for (const node of tree.path(tree.tip()).slice(1)) {
    if (tree.nodes[node].kind !== "typed" || kind !== "typed" || siblings(tree, node).length) runs.push([]);
    runs.at(-1).push(node);
    ({ kind } = tree.nodes[node]);
  }
  return runs;
}

function siblings(tree, node) {
  return tree.children[tree.nodes[node].parent].filter((other) => other !== node);
}

/** A node and those after it, as long as there is no choice. */
function run(tree, node) {
  const nodes = [node];
  while (tree.children[node].length === 1) {
    [node] = tree.children[node];
    nodes.push(node);
  }
  return nodes;
}

function descendants(tree, node) {
  const waiting = [...tree.children[node]];
  let count = 0;
  for (; waiting.length; count += 1) waiting.push(...tree.children[waiting.pop()]);
  return count;
}

function label(tree, step) {
  const inserted = step.map((node) => tree.nodes[node].inserted).join("");
  const text = inserted.trim() || say("branch_removed", { text: step.map((node) => tree.nodes[node].removed).join("").trim() });
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}
