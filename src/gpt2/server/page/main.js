// The page: its parts, brought together.

import { models } from "./api.js";
import { Autopilot, told } from "./autopilot.js";
import { branches } from "./branches.js";
import { Choices } from "./choices.js";
import { dials } from "./sliders.js";
import { $, after, make } from "./dom.js";
import { Drafts } from "./drafts.js";
import { Editor } from "./editor.js";
import { Inside } from "./introspection.js";
import { keys } from "./keyboard.js";
import { onLanguage, say } from "./language.js";
import { Look } from "./probabilities.js";
import { change, DIALS, onChange, reset, settings } from "./settings.js";

const VIEWS = ["write", "look", "inside"];
const USUAL = { n_ctx: 1024, n_vocab: 50257 }; // until the server has said it

let known = []; // models
let ready; // once they are known
const model = () => known.find(({ id }) => id === settings.model) ?? known[0] ?? USUAL;

if (matchMedia("(max-width: 60rem)").matches) $("settings").open = false; // the text comes first
theme();
onChange(theme); // before those who draw by it
const editor = new Editor($("textarea"));
const choices = new Choices(editor);
const autopilot = new Autopilot(editor, choices, async () => (await ready, model().n_ctx));
const drafts = new Drafts(editor);
const look = new Look(editor, model);
const inside = new Inside(editor, model);

function buttons() {
  const touch = matchMedia("(pointer: coarse)").matches; // focus would bring up the keyboard
  const on = (id, call) => $(id).addEventListener("click", () => {
    if (!touch) editor.area.focus();
    call();
  });
  on("continue", () => (settings.three ? autopilot.offer() : autopilot.goOn()));
  on("sentence", () => autopilot.goOn(true));
  on("three", () => autopilot.offer());
  on("another", () => autopilot.goOn());
  on("keep", () => editor.keep());
  on("remove", () => editor.remove());
  on("stop", () => { editor.stop(); choices.dismiss(); });
  on("undo", () => editor.undo());
  on("redo", () => editor.redo());
  $("help").addEventListener("click", () => $("help-dialog").showModal());
  $("look-undo").addEventListener("click", () => editor.undo());
  $("look-continue").addEventListener("click", async () => {
    editor.area.setSelectionRange(editor.text.length, editor.text.length);
    await autopilot.goOn();
    editor.keep();
  });
}

function pausing() {
  const soon = (milliseconds) => after(milliseconds, () => {
    const { area } = editor;
    const isReady = document.activeElement === area && area.selectionStart === area.selectionEnd && !choices.isOpen;
    if (settings.pause && isReady && !editor.suggestion) autopilot.goOn();
  });
  let later = soon(0);
  editor.addEventListener("change", () => later.cancel());
  editor.addEventListener("typed", () => {
    choices.dismiss();
    later.cancel();
    later = soon(1000 * settings.pause);
    if (settings.pause) later();
  });
}

function status() {
  const { suggestion, hasSuggestion, tree } = editor;
  const isWriting = Boolean(suggestion?.isWriting);
  $("stop").hidden = !isWriting;
  $("suggestion").hidden = !hasSuggestion;
  $("suggested").textContent = hasSuggestion ? editor.text.slice(suggestion.start, suggestion.end) : "";
  if (hasSuggestion && !isWriting) $("said").textContent = say("suggested", { text: $("suggested").textContent });
  $("undo").disabled = !tree.canUndo;
  $("redo").disabled = !tree.canRedo;
  const count = editor.text.split(/\s+/).filter(Boolean).length;
  $("count").textContent = say("words", { n: count.toLocaleString(settings.language) });
}

function view(name) {
  for (const each of VIEWS) {
    $(each).hidden = each !== name;
    $(`to-${each}`).setAttribute("aria-current", each === name ? "page" : "false");
  }
  editor.keep();
  choices.dismiss();
  refresh();
}

function refresh() {
  if (editor.suggestion?.isWriting) return;
  if (!$("look").hidden) look.refresh();
  if (!$("inside").hidden) inside.refresh();
}

function theme() {
  document.documentElement.dataset.theme = settings.theme;
}

function chosen() {
  const names = Object.keys(DIALS);
  const show = dials($("dials"), names, (name) => settings[name], (name, value) => change({ [name]: value }));
  const boxes = { "sentence-always": "sentence", "three-always": "three" };
  for (const [id, name] of Object.entries(boxes)) $(id).addEventListener("change", () => change({ [name]: $(id).checked }));
  for (const name of ["language", "theme", "model"]) $(name).addEventListener("change", () => change({ [name]: $(name).value }));
  $("defaults").addEventListener("click", reset);
  const all = () => {
    show();
    for (const [id, name] of Object.entries(boxes)) $(id).checked = settings[name];
    $("language").value = settings.language;
    $("theme").value = settings.theme;
  };
  all();
  onChange((changed) => {
    all();
    if ("model" in changed) { look.asked.forget(); inside.asked.forget(); refresh(); }
  });
}

async function offered() {
  known = await models();
  $("model").replaceChildren(...known.map(({ id }) => make("option", { value: id, text: id })));
  $("model-choice").hidden = known.length < 2;
  if (!known.some(({ id }) => id === settings.model)) change({ model: known[0].id });
  $("model").value = settings.model;
}

function words() {
  const rows = say("help_keys");
  $("help-keys").replaceChildren(...rows.flatMap(([key, about]) => [make("dt", {}, make("kbd", { text: key })), make("dd", { text: about })]));
  status();
}

editor.addEventListener("change", status);
editor.addEventListener("change", refresh);
for (const name of VIEWS) $(`to-${name}`).addEventListener("click", () => view(name));
chosen();
buttons();
pausing();
keys(editor, autopilot, choices);
branches(editor);
drafts.start();
onLanguage(words);
view("write");
ready = offered().catch((error) => told(error));
