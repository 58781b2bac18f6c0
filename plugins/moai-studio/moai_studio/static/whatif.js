// What if: change findings of a picture and ask the same question again.

import { stream } from "./api.js";
import { $, fill, h, percent, plural, say } from "./dom.js";
import { perceive } from "./look.js";
import { move, pointing, stopMoving } from "./overlay.js";
import { body, events } from "./talk.js";
import { asked, countEdits, lastAnswer, noEdits, on, operations, picture, state, tell } from "./state.js";

const NAMES = { object: "thing", text: "print", relation: "relation", note: "sentence" };
let timer = null, result = null, busy = null, focus = null, problem = "";

const follows = () => $("derive")?.checked ?? true;

// Rows to edit: what was found, then what was added; and what follows from them, which is shown as it is now.
function listed(one) {
  const now = one.changed?.findings || one.found.findings, known = new Map(now.filter((found) => found.origin).map((found) => [found.origin, found]));
  const derived = new Set(follows() ? state.run?.derived || [] : []);
  const rows = one.found.findings.filter((found) => !derived.has(found.expert)).map((found) => ({ name: found.id, found, now: known.get(found.id), edit: one.edits.changed[found.id] || {} }));
  const own = one.edits.added.map((edit, index) => ({ name: `added.${index}`, index, found: { ...edit, expert: "you" }, now: known.get(`added.${index}`), edit: {} }));
  return { rows: [...rows, ...own], following: now.filter((found) => derived.has(found.expert)) };
}

function draw() {
  const one = picture(), box = $("whatif-body"), edits = countEdits(one);
  $("whatif-hint").textContent = edits ? plural(edits, "change") : "change a finding and ask again";
  if (!one?.found) return fill(box, h("p", { class: "muted" }, "Choose a picture first."));
  const { rows, following } = listed(one), checked = follows();
  const answer = lastAnswer(), question = asked().at(-1)?.text;
  fill(box,
    h("p", { class: "muted" }, "Perception is plain data. Rename a thing, change a printed word, move or delete a box, or add one; then ask again."),
    problem && h("p", { class: "notice error" }, problem),
    result && compare(),
    h("div", { class: "tools" },
      h("button", { type: "button", class: "primary", id: "again", disabled: !edits || !question || Boolean(busy) || Boolean(state.busy), onclick: again }, busy ? "Asking…" : "Ask again"),
      h("button", { type: "button", id: "add-thing", onclick: () => addOne("object") }, "Add a thing"),
      h("button", { type: "button", onclick: () => addOne("text") }, "Add print"),
      edits > 0 && h("button", { type: "button", class: "quiet", onclick: () => { one.edits = noEdits(); result = null; update(one, 0); } }, "Take all back"),
      !question && state.run?.answers && h("span", { class: "muted small" }, "Ask a question first.")),
    (state.run?.derived || []).length > 0 && h("label", { class: "small" }, h("input", { type: "checkbox", id: "derive", checked, onchange: () => update(one, 0) }), `Let ${state.run.derived.join(" and ")} follow from the changes`),
    h("table", { class: "edit" }, h("caption", { class: "visually-hidden" }, "Findings to change"), h("thead", { class: "visually-hidden" }, h("tr", {}, h("th", { scope: "col" }, "Kind"), h("th", { scope: "col" }, "Finding"), h("th", { scope: "col" }, "Change"))),
      h("tbody", {}, rows.map((row) => editable(one, row)))),
    following.length > 0 && h("p", { class: "muted small", id: "following" }, "These follow: ", following.map((found) => found.text.replace(/\.$/, "")).join("; "), "."));
  if (focus) { document.querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus(); focus = null; }
}

function editable(one, row) {
  const { name, found, edit } = row, text = edit.text ?? (found.kind === "relation" ? found.predicate : found.text), mine = found.expert === "you";
  const what = `${NAMES[found.kind]} “${found.text}”`, shape = row.now?.box || edit.box || found.box;
  const set = (value) => { if (mine) one.edits.added[row.index] = { ...one.edits.added[row.index], ...value }; else one.edits.changed[name] = { ...one.edits.changed[name], ...value }; update(one); };
  const undo = () => { delete one.edits.changed[name]; focus = `text-${name}`; update(one, 0); };
  const [before, after] = found.kind === "relation" ? found.text.split(found.predicate, 2) : ["", ""];
  const input = h("input", { type: "text", value: text, "data-focus": `text-${name}`, maxlength: 256, disabled: Boolean(edit.deleted), "aria-label": `Text of ${what}`, onchange: (event) => { if (event.target.value.trim() && event.target.value !== text) set({ text: event.target.value.trim() }); else event.target.value = text; } });
  const line = h("tr", { class: edit.deleted ? "gone" : "" },
    h("td", { class: "kind narrow-hide" }, NAMES[found.kind]), h("td", {}, found.kind === "relation" ? h("span", { class: "triple" }, before.trim(), input, after.trim()) : input),
    h("td", { class: "acts" },
      Object.keys(edit).length > 0 && h("button", { type: "button", class: "quiet small", "aria-label": `Take back the change of ${what}`, onclick: undo }, "Undo"),
      shape && !edit.deleted && h("button", { type: "button", class: "quiet small", "data-focus": `move-${name}`, "aria-label": `Move ${what}`, onclick: () => place(one, row, shape, set) }, "Move"),
      !edit.deleted && h("button", { type: "button", class: "quiet small", "data-focus": `delete-${name}`, "aria-label": `Delete ${what}`, onclick: () => (mine ? (one.edits.added.splice(row.index, 1), update(one, 0)) : (focus = `text-${name}`, (one.edits.changed[name] = { deleted: true }), update(one, 0))) }, "Delete")));
  return row.now ? pointing(line, row.now.id) : line;
}

function place(one, row, box, set) {
  state.mode = "seen";
  tell("mode");
  $("frame").scrollIntoView({ block: "nearest" });
  $("veil").hidden = false;
  $("veil").textContent = `Move “${row.edit.text ?? row.found.text}”: drag it, or use the arrow keys; with Shift they stretch it. Enter when done.`;
  let last = box;
  move(box, (moved) => { last = moved; }, () => { $("veil").hidden = true; focus = `move-${row.name}`; if (last !== box) set({ box: last }); else draw(); });
}

function addOne(kind) {
  const one = picture();
  one.edits.added.push({ text: kind === "text" ? "WORD" : "thing", box: [0.35, 0.35, 0.65, 0.65], kind });
  focus = `text-added.${one.edits.added.length - 1}`;
  update(one, 0);
}

// Tell the server the edits, and show the findings as they are then.
function update(one, wait = 250) {
  clearTimeout(timer);
  result = null;
  state.mode = "seen"; // where changes are drawn
  draw();
  timer = setTimeout(async () => {
    problem = "";
    if (!countEdits(one)) one.changed = null;
    else {
      await perceive(one);
      const edits = operations(one);
      await stream("/api/edited", { run: state.run.run, picture: one.id, edits, derive: follows() }, { perceived: (event) => { one.changed = event; } }).catch((error) => { problem = error.message; });
    }
    const active = document.activeElement?.dataset?.focus;
    focus = focus || active || null;
    tell("found", one);
  }, wait);
}

async function again() {
  clearTimeout(timer);
  const turns = asked(), answer = lastAnswer(), shown = [...new Set(turns.flatMap((turn) => turn.pictures))];
  busy = {};
  problem = "";
  result = { before: answer, after: { text: "" } };
  draw();
  try {
    const last = await stream("/api/ask", body(turns, shown, { edited: true, instead: answer?.text || null }), { ...events(result.after, shown), token: ({ text }) => { result.after.text += text; draw(); }, answer: ({ text }) => { result.after.text = text; draw(); }, measured: (event) => Object.assign(result.after, event) }, busy);
    if (last?.event === "stopped") result = null;
  } catch (error) {
    problem = error.message;
    result = null;
  }
  busy = null;
  focus = "again";
  if (result) say(`With your changes the answer is: ${result.after.text}`);
  draw();
  $("again")?.focus();
}

function compare() {
  const { before, after } = result, same = before?.text === after.text, done = after.probability !== undefined;
  return h("div", { class: "cards", id: "compared" },
    h("div", { class: "cardlet" }, h("span", { class: "name" }, "As found"), h("span", { class: "says" }, before?.text || "(no words)"), before?.probability !== undefined && h("span", { class: "chance" }, `probability ${percent(before.probability)}`)),
    h("div", { class: "cardlet first" }, h("span", { class: "name" }, "With your changes"), h("span", { class: "says" }, after.text || (done ? "(no words)" : "…")),
      done && after.probability !== null && h("span", { class: "chance" }, `probability ${percent(after.probability)}`), done && !same && after.instead !== null && h("span", { class: "chance" }, `“${before.text}” now: ${percent(after.instead)}`)));
}

export function wire() {
  addEventListener("keydown", (event) => { if (event.key === "Escape" && !$("veil").hidden) stopMoving(); });
  document.addEventListener("pointerdown", (event) => { if (!$("veil").hidden && !event.target.closest(".grip, .handle")) stopMoving(); });
}

on("found active turns run", draw);
on("active", () => { result = null; problem = ""; draw(); });
on("answered", () => { result = null; draw(); });
