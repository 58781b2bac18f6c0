// The conversation: questions, answers as they are made, and what follows from each.

import { stream } from "./api.js";
import { $, fill, h, percent, say, seconds } from "./dom.js";
import { perceive, progress } from "./look.js";
import { findings, numberOf, on, operations, picture, state, tell } from "./state.js";

let question = "";

export async function ask(text) {
  if (!text.trim() || state.busy || !state.active || !state.run?.answers) return;
  question = text;
  tell("error", "");
  const alone = !$("follow").checked, first = alone || !state.turns.length;
  if (alone) for (const turn of state.turns) turn.older = true;
  const shown = [...state.asked].sort((a, b) => numberOf(a) - numberOf(b));
  const turn = { role: "user", text: text.trim(), pictures: shown, alone, first };
  const answer = { role: "assistant", text: "", running: true };
  const before = alone ? [] : history();
  state.turns.push(turn, answer);
  state.rests = null;
  state.mode = "seen";
  state.busy = {};
  tell("turns");
  tell("rests");
  $("question").value = "";
  grow();
  try {
    for (const one of shown.map((id) => picture(id))) await waitFor(one);
    if (state.busy.stopped) throw new Error("Stopped.");
    const last = await stream("/api/ask", body([...before, turn], shown), events(answer, shown), state.busy);
    if (last?.event === "stopped") answer.note = "Stopped.";
  } catch (error) {
    answer.note = error.message;
  }
  answer.running = false;
  state.busy = null;
  tell("turns");
  say(answer.text ? `Answer: ${answer.text}` : answer.note || "No answer");
  tell("answered");
}

async function waitFor(one) {
  state.busy.stop = () => { state.busy.stopped = true; one.work.stop?.(); };
  state.busy.skip = (name) => one.work.skip?.(name);
  await perceive(one);
}

const plain = ({ role, text, pictures }) => ({ role, text, pictures: pictures || [] });

// Earlier turns that count: from the last one that stands alone on, with answers only.
function history() {
  const from = state.turns.findLastIndex((turn) => turn.first);
  const turns = state.turns.slice(Math.max(0, from));
  return turns.filter((turn, at) => (turn.role === "user" ? turns[at + 1]?.text : turn.text));
}

export function body(turns, shown, more = {}) {
  const edits = Object.fromEntries((more.edited ? shown : []).map((id) => [id, operations(picture(id))]).filter(([, list]) => list.length));
  const { edited, ...rest } = more;
  return { run: state.run.run, turns: turns.map(plain), edits, derive: $("derive")?.checked ?? true, ...rest };
}

export function events(answer, shown) {
  const one = picture(shown[0]);
  return {
    ...progress(one),
    token: ({ text }) => { answer.text += text; tell("token", answer); },
    answer: ({ text, seconds: took }) => { answer.text = text; answer.seconds = took; answer.running = false; tell("turns"); },
    measured: ({ probability, instead, tokens }) => { Object.assign(answer, { probability, instead, tokens, measured: true }); tell("turns"); },
  };
}

function draw() {
  const list = $("turns"), last = state.turns.length - 1;
  fill(list, state.turns.map((turn, index) => (turn.role === "user" ? asked(turn) : answered(turn, index === last))));
  $("hello").hidden = state.turns.length > 0;
  $("clear").hidden = !state.turns.length || Boolean(state.busy);
  controls();
}

const asked = (turn) => h("li", { class: "turn user" }, turn.text, state.pictures.length > 1 && turn.pictures.length > 0 && h("span", { class: "which" }, `picture ${turn.pictures.map(numberOf).filter(Boolean).join(", ") || "removed"}`));

function answered(turn, newest) {
  const failures = newest && state.active ? (picture()?.found?.experts || []).filter((expert) => expert.failure) : [];
  const text = h("p", { class: `text${turn.running ? " cursor" : ""}${turn.text ? "" : " empty"}` }, turn.text || (turn.running ? "" : turn.note || "(no words)"));
  return h("li", { class: `turn assistant${newest ? "" : " older"}` }, text,
    !turn.running && turn.seconds && h("div", { class: "meta" },
      newest && turn.text && h("button", { type: "button", class: "quiet small", id: "why", onclick: () => { $("rests").open = true; $("rests").scrollIntoView({ block: "nearest", behavior: "smooth" }); } }, "Why this answer?"),
      turn.measured && turn.probability !== null && h("span", { class: "chance" }, `probability ${percent(turn.probability)}`),
      h("span", {}, seconds(turn.seconds.perception + turn.seconds.waiting + turn.seconds.answer)),
      turn.text && turn.note && h("span", {}, turn.note),
      failures.map((expert) => h("span", { class: "without" }, `Answered without ${expert.name}: ${expert.failure}`))));
}

function controls() {
  const ready = Boolean(state.active && state.run?.answers);
  $("ask").hidden = Boolean(state.busy);
  $("stop").hidden = !state.busy;
  $("ask").disabled = !ready;
  $("question").placeholder = !state.run ? "Opening the run…" : !state.run.answers ? "Experts alone answer nothing; choose a run" : ready ? "Ask about the picture" : "Choose a picture, then ask";
  $("form").hidden = Boolean(state.run && !state.run.answers);
  $("form").nextElementSibling.hidden = Boolean(state.run && !state.run.answers);
  for (const id of ["rests", "whatif", "inside"]) $(id).hidden = Boolean(state.run && !state.run.answers); // nothing to find out
  if (state.run && !state.run.answers && !state.turns.length) $("hello").textContent = "Experts alone: they look at your pictures, and no language model answers. Choose a run above to ask.";
  else $("hello").textContent = "Ask about what is in the picture. Experts look first; a frozen language model reads what they found, and answers.";
  suggest();
}

function suggest() {
  const one = picture();
  const free = one && state.run?.answers && !state.busy;
  fill($("suggestions"), free ? questions().map((text) => h("button", { type: "button", onclick: () => ask(text) }, text)) : []);
}

const MANY = { person: "people", man: "men", woman: "women", child: "children", bus: "buses", mouse: "mice", knife: "knives", sheep: "sheep" };
const several = (name) => MANY[name] || (/(s|x|ch|sh)$/.test(name) ? `${name}es` : /[^aeiou]y$/.test(name) ? `${name.slice(0, -1)}ies` : `${name}s`);

function questions() {
  const surest = findings().filter((one) => one.kind === "object" && one.read !== false).sort((a, b) => b.score - a.score);
  const names = [...new Set(surest.map((one) => one.text))];
  if (!names.length) return ["What is in the image?", "What color is it?"];
  const [first, second] = names, made = [`How many ${several(first.split(" ").at(-1))} are there?`, `Where is the ${first}?`];
  if (second) made.push(`Is there ${/^[aeiou]/.test(second) ? "an" : "a"} ${second}?`);
  if (findings().some((one) => one.kind === "relation")) made.push(`What is to the right of the ${first}?`);
  return made.filter((text) => !state.turns.some((turn) => turn.text === text)).slice(0, 4);
}

function grow() {
  const box = $("question");
  box.style.height = "auto";
  box.style.height = `${Math.min(160, box.scrollHeight)}px`;
}

export function wire() {
  $("form").addEventListener("submit", (event) => { event.preventDefault(); ask($("question").value); });
  $("question").addEventListener("input", grow);
  $("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask($("question").value); }
    if (event.key === "ArrowUp" && !event.target.value && question) { event.target.value = question; grow(); }
  });
  $("stop").addEventListener("click", () => state.busy?.stop?.());
  $("clear").addEventListener("click", () => { state.turns = []; state.rests = null; state.mode = "seen"; tell("turns"); tell("rests"); $("question").focus(); });
}

on("turns", draw);
on("active found run", controls);
on("token", (answer) => { const last = $("turns").lastElementChild?.querySelector(".text"); if (last) { last.textContent = answer.text; last.classList.remove("empty"); } });
