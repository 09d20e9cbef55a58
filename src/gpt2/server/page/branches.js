// The list of branches: the path through the draft from its start, with the alternatives to each step.

import { $, createElement, keepInView } from "./dom.js";
import { onLanguageChange, translate } from "./language.js";

const MAX_LABEL_CHARACTERS = 60;
const MAX_STEPS = 80; // only the steps around the current one are listed
const MAX_ALTERNATIVES = 10; // listed for each step, until the user requests more
const MORE_ALTERNATIVES = 100; // added by each request

/** Show the branches of the editor's draft and update them with every change. */
export function showBranches(editor) {
  const list = $("branch-list");
  const showCurrent = keepInView(list, () => list.querySelector("[aria-current]") ?? list.firstElementChild);
  let alternativeLimits = new Map(); // by the parent node, where the user has requested more alternatives
  let { tree } = editor;
  let isScheduled = false;

  const scheduleUpdate = () => {
    if (isScheduled) return;
    isScheduled = true;
    requestAnimationFrame(() => {
      isScheduled = false;
      update();
    });
  };
  editor.addEventListener("change", scheduleUpdate);
  onLanguageChange(scheduleUpdate);

  function update() {
    if (tree !== editor.tree) alternativeLimits = new Map();
    tree = editor.tree;
    const steps = pathSteps(tree);
    const currentStep = steps.findIndex((step) => stepKind(tree, step) === "current");
    const items = itemsAround(steps, currentStep, MAX_STEPS).flatMap((step) =>
      [...alternativeItems(step[0]), branchItem(step, step.at(-1), stepKind(tree, step))]);
    list.replaceChildren(...items);
    showCurrent();
  }

  /** Return the items of the alternatives to a node: those next to it, and one that requests more. */
  function alternativeItems(node) {
    const { parent } = tree.nodes[node];
    const siblings = tree.children[parent];
    const limit = alternativeLimits.get(parent) ?? MAX_ALTERNATIVES;
    const shown = itemsAround(siblings, siblings.indexOf(node), limit + 1).filter((other) => other !== node);
    const items = shown.map((other) => branchItem(unbranchedRun(tree, other), tree.tip(other), "alternative"));
    const hiddenCount = siblings.length - 1 - shown.length;
    if (!hiddenCount) return items;
    const text = translate("alternatives_more", { n: hiddenCount });
    const button = createElement("button", { type: "button", "data-parent": parent, text });
    button.addEventListener("click", () => {
      alternativeLimits.set(parent, limit + MORE_ALTERNATIVES);
      update();
      list.querySelector(`[data-parent="${parent}"], [aria-current]`)?.focus();
    });
    return [createElement("li", { class: "alternative more" }, button), ...items];
  }

  function branchItem(step, target, kind) {
    const button = createElement("button", { type: "button", "aria-current": kind === "current" && "step" },
      createElement("span", { text: stepLabel(tree, step) }));
    const hiddenCount = kind === "alternative" ? countDescendants(tree, step.at(-1)) : 0;
    if (hiddenCount) button.append(createElement("small", { text: translate("branch_more", { n: hiddenCount }) }));
    button.addEventListener("click", () => {
      editor.goTo(target);
      list.querySelector("[aria-current]")?.focus();
    });
    return createElement("li", { class: kind }, button);
  }
}

/** Return at most `count` items of a list: those around an index, or the first ones if it is -1. */
function itemsAround(items, index, count) {
  const start = Math.max(0, Math.min(items.length - count, index - Math.floor(count / 2)));
  return items.slice(start, start + count);
}

function stepKind(tree, step) {
  const depth = tree.depths[tree.current];
  if (tree.depths[step[0]] > depth) return "upcoming";
  return tree.depths[step.at(-1)] < depth ? "past" : "current";
}

/**
 * Return the path to the node where redo ends, split into steps. A step is a list of nodes; consecutive typed nodes
 * form one step unless one of them has alternatives.
 */
function pathSteps(tree) {
  const steps = [];
  let previousKind = null;
  for (const node of tree.path(tree.tip()).slice(1)) {
    const { kind, parent } = tree.nodes[node];
    if (kind !== "typed" || previousKind !== "typed" || tree.children[parent].length > 1) steps.push([]);
    steps.at(-1).push(node);
    previousKind = kind;
  }
  return steps;
}

/** Return a node and its descendants up to the first fork. */
function unbranchedRun(tree, node) {
  const nodes = [node];
  while (tree.children[node].length === 1) {
    [node] = tree.children[node];
    nodes.push(node);
  }
  return nodes;
}

function countDescendants(tree, node) {
  const queue = [node];
  let count = -1; // the node itself
  for (; queue.length; count += 1) for (const child of tree.children[queue.pop()]) queue.push(child);
  return count;
}

function stepLabel(tree, step) {
  const inserted = startOfTexts(tree, step, "inserted");
  const label = inserted || translate("branch_removed", { text: startOfTexts(tree, step, "removed") });
  return label.length > MAX_LABEL_CHARACTERS ? `${label.slice(0, MAX_LABEL_CHARACTERS)}…` : label;
}

/** Return the start of the joined texts of a step, long enough for a label. */
function startOfTexts(tree, step, property) {
  let start = "";
  for (const node of step) {
    start = (start + tree.nodes[node][property]).trimStart();
    if (start.length > MAX_LABEL_CHARACTERS) break;
  }
  return start.trim();
}
