// What the last answer rests on: three conditions, each fact left out, and where attention points elsewhere.

import { stream } from "./api.js";
import { $, fill, h, percent, plural, say } from "./dom.js";
import { body } from "./talk.js";
import { pointing } from "./overlay.js";
import { asked, colour, lastAnswer, numberOf, on, picture, state, tell } from "./state.js";

const NAMES = { on: "With perception", off: "Without perception", other: "With another picture’s" };
const SMALL = 0.02, FEW = 8;
let handle = null, all = false;

async function find() {
  const answer = lastAnswer();
  if (!answer?.text || handle || state.busy) return;
  const turns = asked(), result = { of: answer };
  state.rests = result;
  handle = {};
  all = false;
  draw();
  try {
    const shown = [...new Set(turns.flatMap((turn) => turn.pictures))];
    const last = await stream("/api/rests-on", body(turns, shown, { answer: answer.text }), {
      conditions: (event) => { result.conditions = event.conditions; draw(); },
      attention: (event) => { result.why = event.why; result.gates = event.gates; tell("gates"); },
      progress: (event) => { result.progress = event; draw(); },
      facts: (event) => { result.facts = event.facts; result.verdict = event.verdict; result.attendedIn = event.facts.find((fact) => fact.finding === event.verdict.attended)?.picture; result.probability = event.probability; },
    }, handle);
    if (last?.event === "stopped") result.note = "Stopped.";
  } catch (error) {
    result.note = error.message;
  }
  handle = null;
  if (state.rests !== result) return draw();
  if (result.facts) { state.mode = "rests"; say(result.verdict.text); }
  tell("rests");
}

function draw() {
  const box = $("rests-body"), answer = lastAnswer(), result = state.rests;
  if (!answer?.text && !handle) return fill(box, h("p", { class: "muted" }, state.run && !state.run.answers ? "Experts alone answer nothing." : "Ask a question first. Then each fact is left out in turn and the question asked again: what makes the answer’s probability fall is what it rests on."));
  if (!result) return fill(box, h("button", { type: "button", class: "primary", id: "find", onclick: find }, "Leave each fact out and ask again"));
  fill(box,
    result.conditions && h("div", { class: "cards", id: "conditions" }, result.conditions.map((one) => condition(one, result.of.text))),
    handle && working(result.progress),
    result.note && h("div", { class: "tools" }, h("p", { class: "muted" }, result.note), h("button", { type: "button", onclick: () => { state.rests = null; find(); } }, "Try again")),
    result.facts && [h("p", { class: "verdict", id: "verdict" }, result.verdict.text), table(result)]);
}

function condition({ condition: name, about, answer, probability }, text) {
  return h("div", { class: `cardlet${name === "on" ? " first" : ""}` }, h("span", { class: "name" }, NAMES[name]), h("span", { class: "says" }, answer || "(no words)"),
    h("span", { class: "chance" }, `“${text}”: ${percent(probability)}`), h("div", { class: `meter${name === "on" ? "" : " grey"}` }, h("i", { style: { width: `${100 * probability}%` } })), name === "other" && h("span", { class: "chance" }, about));
}

const working = (progress) => h("div", { class: "working" }, h("span", { class: "spin", "aria-hidden": "true" }),
  h("span", {}, progress ? `${progress.done} of ${plural(progress.total, "fact")} left out` : "Asking again"),
  h("progress", { max: progress?.total || 1, value: progress ? progress.done : 0, "aria-label": "Facts left out" }), h("button", { type: "button", class: "small", onclick: () => handle?.stop() }, "Stop"));

function table(result) {
  const read = result.facts.filter((fact) => fact.read), most = Math.max(SMALL, ...read.map((fact) => Math.abs(fact.fall)));
  const shares = Math.max(0.0001, ...read.map((fact) => fact.share || 0));
  const several = new Set(read.map((fact) => fact.picture)).size > 1;
  const shown = all ? read : read.slice(0, FEW), attended = read.find((fact) => fact.finding === result.verdict.attended);
  if (!all && attended && !shown.includes(attended)) shown.push(attended);
  const unread = result.facts.length - read.length;
  return [
    h("table", { id: "facts" }, h("caption", {}, `“${result.of.text}” has a probability of ${percent(result.probability)}; its change in points when a fact is left out`),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Fact left out"), h("th", { scope: "col" }, "Change"), h("th", { scope: "col" }, "Attention"), h("th", { scope: "col" }, "Then"))),
      h("tbody", {}, shown.map((fact) => row(fact, result, most, shares, several)))),
    h("div", { class: "tools" }, read.length > shown.length && h("button", { type: "button", class: "small", onclick: () => { all = true; draw(); } }, `All ${read.length} facts`),
      h("p", { class: "muted small" }, result.why ? `No attention is shown: ${result.why}.` : "Attention: the fact’s share of what the mixers read. Leaving a fact out is exact; attention only says what was looked at.", unread ? ` ${plural(unread, "fact")} did not fit into the model’s words, and cannot matter.` : "")),
  ];
}

function row(fact, result, most, shares, several) {
  const found = (picture(fact.picture)?.found?.findings || []).find((one) => one.id === fact.finding);
  const points = Math.round(100 * fact.fall), strong = Math.abs(fact.fall) >= SMALL;
  const misled = fact.finding === result.verdict.attended && result.verdict.agree === false;
  const line = h("tr", { "data-finding": fact.finding },
    h("td", {}, h("span", { class: "swatch", style: { "--colour": colour(found?.expert) }, "aria-hidden": "true" }), h("button", { type: "button", class: "what", onclick: () => { state.active !== fact.picture && tell("show", fact.picture); } }, fact.text),
      several && h("span", { class: "tag" }, `picture ${numberOf(fact.picture)}`), fact.finding === result.verdict.top && fact.fall >= 0.25 && h("span", { class: "tag cause" }, "decides"), misled && h("span", { class: "tag" }, "attention only")),
    h("td", {}, bar(Math.abs(fact.fall) / most, strong ? `${points > 0 ? "−" : "+"}${Math.abs(points)}` : "0", points > 0 ? "" : " grey")),
    h("td", {}, fact.share === null ? h("span", { class: "muted" }, "–") : bar(fact.share / shares, percent(fact.share), " grey")),
    h("td", { class: fact.answer === result.of.text ? "muted" : "" }, fact.answer || "(no words)"));
  return fact.picture === state.active ? pointing(line, fact.finding) : line;
}

const bar = (part, text, grey) => h("div", { class: "pair" }, h("div", { class: `meter${grey}` }, h("i", { style: { width: `${Math.max(0, Math.min(1, part)) * 100}%` } })), h("span", {}, text));

export function wire() {
  $("rests").addEventListener("toggle", () => { if ($("rests").open && !state.rests) find(); });
  for (const button of $("modes").children) button.addEventListener("click", () => { state.mode = button.dataset.mode; tell("mode"); });
}

on("rests turns run active", () => { if (state.rests && state.rests.of !== lastAnswer() && !handle) state.rests = null; draw(); });
on("answered", () => { if ($("rests").open) find(); });
