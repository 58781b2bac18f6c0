// The page: what is there, which run is open, and the colours.

import { begin, json, stream } from "./api.js";
import { $, fill, h, percent } from "./dom.js";
import * as look from "./look.js";
import * as talk from "./talk.js";
import * as rests from "./rests.js";
import * as whatif from "./whatif.js";
import { noEdits, on, picture, state, tell } from "./state.js";
import "./overlay.js";
import "./seen.js";
import "./card.js";

const THEMES = ["system", "light", "dark"];
const ICONS = {
  system: '<rect x="3" y="4" width="18" height="13" rx="2"/><path d="M8 21h8M12 17v4"/>',
  light: '<circle cx="12" cy="12" r="4"/><path d="M12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6l1.400 1.400M17 17l1.400 1.400M5.600 18.400l1.400-1.400M17 7l1.400-1.400"/>',
  dark: '<path d="M20 14.500A8 8 0 0 1 9.500 4 8 8 0 1 0 20 14.500z"/>',
};
const system = matchMedia("(prefers-color-scheme: dark)");

function theme(chosen) {
  localStorage.setItem("moai-theme", chosen);
  document.documentElement.dataset.theme = chosen === "system" ? (system.matches ? "dark" : "light") : chosen;
  $("theme").innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true">${ICONS[chosen]}</svg>`; // of the constant above
  $("theme").setAttribute("aria-label", `Colours: ${chosen === "system" ? "as the system" : chosen}`);
  $("theme").title = $("theme").getAttribute("aria-label");
}

async function open(id) {
  $("runs").close();
  const name = id === "none" ? "Experts alone" : state.runs.find((one) => one.id === id)?.name;
  state.run = null;
  $("run-name").textContent = `Opening ${name}…`;
  tell("run");
  try {
    await stream(`/api/runs/${id}`, null, { opened: (event) => { state.run = event; } });
  } catch (error) {
    tell("error", error.message);
    $("run-name").textContent = "Choose a run";
    return;
  }
  $("run-name").textContent = name;
  $("follow").checked = state.run.follows;
  $("follow").parentElement.title = state.run.follows ? "" : "This run was trained on single questions";
  state.turns = [];
  state.rests = null;
  state.mode = "seen";
  // Relations are many lines over each other: their layers are off at first.
  state.off = new Set(state.run.card.experts.filter((one) => one.role === "scene_graph").map((one) => one.name));
  for (const one of state.pictures) { Object.assign(one, { found: null, changed: null, perceiving: null, edits: noEdits() }); look.perceive(one); }
  for (const event of ["run", "turns", "rests", "active"]) tell(event);
}

function choose() {
  const entry = (id, title, about, score) => h("li", {}, h("button", { type: "button", class: "run", "aria-current": state.run?.run === id ? "true" : null, onclick: () => open(id) }, h("span", { class: "title" }, title), h("span", { class: "score" }, score), h("span", { class: "about" }, about)));
  fill($("run-list"), state.runs.map((one) => entry(one.id, one.name, `${one.host}, with ${one.experts.join(", ") || "no experts"}`, one.accuracy === null ? "" : `${percent(one.accuracy)} right`)),
    entry("none", "Experts alone", "See what the installed experts find; nothing answers", ""));
  if (!state.runs.length) $("runs-about").textContent = "No run is at hand: start moai studio where runs/ is, or name one. Experts alone can look at pictures meanwhile.";
  $("runs").showModal();
}

on("error", (text) => { $("notice").hidden = !text; $("notice").textContent = text; });
on("show", (id) => look.show(id));

async function start() {
  theme(THEMES.includes(localStorage.getItem("moai-theme")) ? localStorage.getItem("moai-theme") : "system");
  system.addEventListener("change", () => theme(localStorage.getItem("moai-theme")));
  $("theme").addEventListener("click", () => theme(THEMES[(THEMES.indexOf(localStorage.getItem("moai-theme")) + 1) % 3]));
  $("choose-run").addEventListener("click", choose);
  for (const part of [look, talk, rests, whatif]) part.wire();
  for (const event of ["active", "turns"]) tell(event);
  try {
    const there = await json("/api/state");
    await begin();
    Object.assign(state, { runs: there.runs, examples: there.examples });
    $("version").textContent = `moai ${there.version}`;
    look.examplesInto($("examples"));
    if (matchMedia("(min-width: 901px)").matches) $("seen").open = true;
    if (there.runs.length === 1) await open(there.runs[0].id);
    else { $("run-name").textContent = "Choose a run"; choose(); }
  } catch (error) {
    tell("error", error.message);
  }
}

start();
