// The list of branches: the path through the draft from its start, with the alternatives to each step.

import { $, createElement } from "./dom.js";
import { onLanguageChange, translate } from "./language.js";

const MAX_LABEL_CHARACTERS = 60;
const MAX_STEPS = 80; // only the last steps of the path are listed

/** Show the branches of the editor's draft and update them with every change. */
export function showBranches(editor) {
  const list = $("branch-list");
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
    const { tree } = editor;
    const ancestors = new Set(tree.path());
    const items = pathSteps(tree).slice(-MAX_STEPS).flatMap((step) => {
      const alternatives = siblings(tree, step[0]).map((node) =>
        branchItem(tree, unbranchedRun(tree, node), tree.tip(node), "alternative"));
      return [...alternatives, branchItem(tree, step, step.at(-1), stepKind(tree, step, ancestors))];
    });
    list.replaceChildren(...items);
    const current = list.querySelector("[aria-current]");
    if (current) list.scrollTop = current.offsetTop - list.clientHeight / 2; // scrollIntoView would move the page
  }

  function branchItem(tree, step, target, kind) {
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

function stepKind(tree, step, ancestors) {
  if (step.includes(tree.current)) return "current";
  return ancestors.has(step[0]) ? "past" : "upcoming";
}

/**
 * Return the path to the node where redo ends, split into steps. A step is a list of nodes; consecutive typed nodes
 * form one step unless one of them has alternatives.
 */
function pathSteps(tree) {
  const steps = [];
  let previousKind = null;
  for (const node of tree.path(tree.tip()).slice(1)) {
    const { kind } = tree.nodes[node];
    if (kind !== "typed" || previousKind !== "typed" || siblings(tree, node).length) steps.push([]);
    steps.at(-1).push(node);
    previousKind = kind;
  }
  return steps;
}

function siblings(tree, node) {
  return tree.children[tree.nodes[node].parent].filter((other) => other !== node);
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
  const queue = [...tree.children[node]];
  let count = 0;
  for (; queue.length; count += 1) queue.push(...tree.children[queue.pop()]);
  return count;
}

function stepLabel(tree, step) {
  const inserted = step.map((node) => tree.nodes[node].inserted).join("");
  const removed = step.map((node) => tree.nodes[node].removed).join("");
  const label = inserted.trim() || translate("branch_removed", { text: removed.trim() });
  return label.length > MAX_LABEL_CHARACTERS ? `${label.slice(0, MAX_LABEL_CHARACTERS)}…` : label;
}
