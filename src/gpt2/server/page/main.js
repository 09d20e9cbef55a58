// Starts the page: creates its parts and connects them.

import { fetchModels } from "./api.js";
import { Autopilot, reportError } from "./autopilot.js";
import { showBranches } from "./branches.js";
import { Choices } from "./choices.js";
import { isServerDown, onConnectionChange } from "./connection.js";
import { $, createElement, debounce } from "./dom.js";
import { Drafts } from "./drafts.js";
import { Editor } from "./editor.js";
import { IntrospectionView } from "./introspection.js";
import { addShortcuts } from "./keyboard.js";
import { onLanguageChange, translate } from "./language.js";
import { ProbabilitiesView } from "./probabilities.js";
import { changeSettings, onSettingsChange, resetSettings, settings, SLIDERS } from "./settings.js";
import { addSliders } from "./sliders.js";

const VIEWS = ["write", "probabilities", "introspection"];
const CHECK_BOXES = { "sentence-always": "sentence", "three-always": "three" }; // element ids and settings
const DEFAULT_MODEL = { n_ctx: 1024, n_vocab: 50257 }; // used until the server has described its models

let models = [];
let modelsLoaded; // a promise
const getModel = () => models.find(({ id }) => id === settings.model) ?? models[0] ?? DEFAULT_MODEL;

if (matchMedia("(max-width: 60rem)").matches) $("settings").open = false; // a phone shows the text first
applyTheme();
onSettingsChange(applyTheme); // must be the first listener: others draw with the colors of the theme
const editor = new Editor($("textarea"));
const choices = new Choices(editor);
const autopilot = new Autopilot(editor, choices, async () => {
  await modelsLoaded;
  return getModel().n_ctx;
});
const drafts = new Drafts(editor);
const probabilitiesView = new ProbabilitiesView(editor, getModel);
const introspectionView = new IntrospectionView(editor, getModel);

function connectButtons() {
  const isTouch = matchMedia("(pointer: coarse)").matches; // there, the focus would open the on-screen keyboard
  const onClick = (id, action) => $(id).addEventListener("click", () => {
    if (!isTouch) editor.area.focus();
    action();
  });
  onClick("continue", () => (settings.three ? autopilot.showChoices() : autopilot.continueText()));
  onClick("finish-sentence", () => autopilot.continueText(true));
  onClick("show-three", () => autopilot.showChoices());
  for (const id of ["try-again", "choices-again"]) onClick(id, () => autopilot.tryAgain());
  onClick("choices-discard", () => choices.dismiss());
  onClick("accept", () => editor.acceptSuggestion());
  onClick("discard", () => editor.discardSuggestion());
  onClick("stop", () => {
    editor.finishSuggestion();
    choices.dismiss();
  });
  onClick("undo", () => editor.undo());
  onClick("redo", () => editor.redo());
  $("help").addEventListener("click", () => $("help-dialog").showModal());
  $("probabilities-undo").addEventListener("click", () => editor.undo());
  $("probabilities-continue").addEventListener("click", async () => {
    editor.area.setSelectionRange(editor.text.length, editor.text.length);
    await autopilot.continueText();
    editor.acceptSuggestion();
  });
}

function continueAfterPauses() {
  const debounceContinue = (milliseconds) => debounce(milliseconds, () => {
    const { area } = editor;
    const isCursorInText = document.activeElement === area && area.selectionStart === area.selectionEnd;
    if (settings.pause && isCursorInText && !choices.isOpen && !editor.suggestion) autopilot.continueText();
  });
  let continueSoon = debounceContinue(0);
  editor.addEventListener("change", () => continueSoon.cancel());
  editor.addEventListener("typed", () => {
    choices.dismiss();
    continueSoon.cancel();
    continueSoon = debounceContinue(1000 * settings.pause);
    if (settings.pause) continueSoon();
  });
}

function updateStatus() {
  const { suggestion, hasSuggestion, tree } = editor;
  const isStreaming = Boolean(suggestion?.isStreaming);
  const suggestedText = hasSuggestion ? editor.text.slice(suggestion.start, suggestion.end) : "";
  $("stop").hidden = !isStreaming;
  $("suggestion").hidden = !hasSuggestion;
  $("suggestion-text").textContent = suggestedText;
  if (hasSuggestion && !isStreaming) $("announcement").textContent = translate("suggested", { text: suggestedText });
  $("undo").disabled = !tree.canUndo;
  $("redo").disabled = !tree.canRedo;
  const wordCount = editor.text.split(/\s+/).filter(Boolean).length;
  $("word-count").textContent = translate("word_count", { n: wordCount.toLocaleString(settings.language) });
}

function showView(selected) {
  for (const name of VIEWS) {
    $(name).hidden = name !== selected;
    $(`to-${name}`).setAttribute("aria-current", name === selected ? "page" : "false");
  }
  editor.acceptSuggestion();
  choices.dismiss();
  refreshView();
}

function refreshView() {
  if (editor.suggestion?.isStreaming) return;
  if (!$("probabilities").hidden) probabilitiesView.refresh();
  if (!$("introspection").hidden) introspectionView.refresh();
}

function applyTheme() {
  document.documentElement.dataset.theme = settings.theme;
}

function connectSettings() {
  const setValue = (name, value) => changeSettings({ [name]: value });
  const updateSliders = addSliders($("sliders"), Object.keys(SLIDERS), (name) => settings[name], setValue);
  for (const [id, name] of Object.entries(CHECK_BOXES)) {
    $(id).addEventListener("change", () => setValue(name, $(id).checked));
  }
  for (const name of ["language", "theme", "model"]) {
    $(name).addEventListener("change", () => setValue(name, $(name).value));
  }
  $("reset").addEventListener("click", resetSettings);
  const updateAll = () => {
    updateSliders();
    for (const [id, name] of Object.entries(CHECK_BOXES)) $(id).checked = settings[name];
    $("language").value = settings.language;
    $("theme").value = settings.theme;
  };
  updateAll();
  onSettingsChange((changed) => {
    updateAll();
    if ("model" in changed) {
      probabilitiesView.request.reset();
      introspectionView.request.reset();
      refreshView();
    }
  });
}

/** Fetch the list of models. It is fetched again after each outage, because another server may have started. */
async function loadModels() {
  models = await fetchModels();
  $("model").replaceChildren(...models.map(({ id }) => createElement("option", { value: id, text: id })));
  $("model-choice").hidden = models.length < 2;
  if (!models.some(({ id }) => id === settings.model)) changeSettings({ model: models[0].id });
  $("model").value = settings.model;
}

function showHelp() {
  $("help-keys").replaceChildren(...translate("help_keys").flatMap(([key, about]) => [
    createElement("dt", {}, createElement("kbd", { text: key })),
    createElement("dd", { text: about }),
  ]));
}

editor.addEventListener("change", updateStatus);
editor.addEventListener("change", refreshView);
for (const name of VIEWS) $(`to-${name}`).addEventListener("click", () => showView(name));
connectSettings();
connectButtons();
continueAfterPauses();
addShortcuts(editor, autopilot, choices);
showBranches(editor);
drafts.start();
onLanguageChange(showHelp);
onLanguageChange(updateStatus);
showView("write");
modelsLoaded = loadModels().catch((error) => reportError(error));
onConnectionChange(() => {
  if (isServerDown()) return;
  loadModels().catch((error) => reportError(error));
  refreshView(); // sends a request again that an error had ended
});
