// Pictures: choosing, perceiving, and the experts at work on one.

import { blobUrl, json, stream } from "./api.js";
import { $, fill, h, plural, say, seconds } from "./dom.js";
import { noEdits, numberOf, on, picture, state, tell } from "./state.js";

export async function addFile(file) {
  if (!file) return;
  await add(() => json("/api/pictures", { method: "POST", body: file }), file.name || "Picture");
}

export async function addExample(example) {
  await add(() => json(`/api/examples/${encodeURIComponent(example.id)}`, { method: "POST" }), example.title);
}

async function add(send, title) {
  tell("error", "");
  document.body.classList.add("adding");
  try {
    const held = await send();
    const one = { ...held, title, url: await blobUrl(`/api/pictures/${held.id}`), edits: noEdits(), found: null, changed: null, work: {}, experts: new Map() };
    state.pictures.push(one);
    show(one.id, true);
    perceive(one);
  } catch (error) {
    tell("error", error.message);
  } finally {
    document.body.classList.remove("adding");
  }
}

export function show(id, alone = false) {
  state.active = id;
  if (alone || !state.asked.has(id)) state.asked = new Set([id]);
  const one = picture();
  $("drop").hidden = Boolean(one);
  $("shown").hidden = !one;
  if (one) {
    $("image").src = one.url;
    $("image").alt = one.title;
  }
  tell("active");
}

// Perceive a picture once for the open run; whoever asks meanwhile waits for the same.
export function perceive(one, again = false) {
  if (one.perceiving && !again) return one.perceiving;
  one.experts = new Map();
  one.work = {};
  one.failed = "";
  const run = state.run;
  if (!run) return Promise.resolve();
  one.perceiving = stream("/api/perceive", { run: run.run, picture: one.id, again }, progress(one), one.work).then((last) => {
    if (last?.event === "stopped") { one.perceiving = null; one.failed = "Stopped before the experts were done."; }
  }).catch((error) => { one.failed = error.message; one.perceiving = null; }).finally(() => { one.experts = new Map(); tell("found", one); });
  tell("found", one);
  return one.perceiving;
}

// What to do with events about experts; asking brings them, too.
export function progress(one) {
  return {
    experts: ({ names }) => { one.experts = new Map(names.map((name) => [name, { state: "waiting" }])); working(); },
    expert: ({ name, state: now, seconds: took }) => { one.experts.set(name, { state: now, took, since: performance.now() }); working(); },
    perceived: (event) => {
      one.found = event;
      one.experts = new Map();
      say(`${plural(event.findings.length, "finding")} in the picture`);
      tell("found", one);
    },
  };
}

function working() {
  const one = picture(), box = $("perceiving");
  const busy = one && [...one.experts.values()].some((expert) => expert.state !== "finished");
  box.hidden = !busy && !one?.failed && !(one?.found?.experts || []).some((expert) => expert.failure);
  if (box.hidden) return fill(box);
  if (busy) return fill(box, [...one.experts].map(([name, expert]) => row(one, name, expert)));
  const failures = (one.found?.experts || []).filter((expert) => expert.failure);
  fill(box,
    one.failed && h("li", {}, h("span", { class: "name" }, one.failed), h("button", { type: "button", class: "quiet small", onclick: () => perceive(one, true) }, "Look again")),
    failures.map((expert) => h("li", {}, h("span", { class: "name" }, h("strong", {}, expert.name), ` gave nothing: ${expert.failure}`),
      h("button", { type: "button", class: "quiet small", onclick: () => perceive(one, true) }, "Look again"))));
}

function row(one, name, expert) {
  const mark = { finished: h("span", { class: "tick", "aria-hidden": "true" }, "✓"), started: h("span", { class: "spin", "aria-hidden": "true" }), waiting: h("span", { class: "tick" }) }[expert.state];
  const note = expert.state === "finished" ? seconds(expert.took) : expert.state === "started" ? "looks" : "";
  return h("li", { class: expert.state }, mark, h("span", { class: "name" }, name), h("span", { class: "muted" }, note),
    expert.state === "started" && h("button", { type: "button", class: "quiet small", "aria-label": `Skip ${name}`, onclick: () => (one.work.skip || state.busy?.skip)?.(name) }, "Skip"));
}

function strip() {
  const focus = document.activeElement?.dataset?.focus;
  fill($("pictures"), state.pictures.map((one, index) => h("li", {},
    h("button", { type: "button", class: "pick", "data-focus": `pick-${one.id}`, "aria-current": one.id === state.active ? "true" : null, "aria-label": `Picture ${index + 1}: ${one.title}`, onclick: () => show(one.id, true) },
      h("img", { src: one.url, alt: "" }), state.pictures.length > 1 && h("span", { class: "number", "aria-hidden": "true" }, String(index + 1))),
    state.pictures.length > 1 && one.id !== state.active && h("button", { type: "button", class: "also", "data-focus": `also-${one.id}`, "aria-pressed": String(state.asked.has(one.id)), "aria-label": `Ask about picture ${index + 1} as well`, title: "Ask about this one as well", onclick: () => { state.asked.has(one.id) ? state.asked.delete(one.id) : state.asked.add(one.id); tell("active"); } }, state.asked.has(one.id) ? "✓" : "+"))));
  if (focus) document.querySelector(`[data-focus="${focus}"]`)?.focus();
  const ids = [...state.asked];
  $("about").textContent = ids.length > 1 ? `About pictures ${ids.map(numberOf).sort().join(" and ")}` : "";
}

export function examplesInto(list, chosen = () => {}) {
  fill(list, state.examples.map((example) => {
    const image = h("span", { class: "blank" });
    blobUrl(`/api/examples/${encodeURIComponent(example.id)}`).then((url) => image.replaceWith(h("img", { src: url, alt: "" }))).catch(() => {});
    return h("li", {}, h("button", { type: "button", class: "thumb", onclick: () => { chosen(); addExample(example); } }, image, example.title));
  }));
}

export function wire() {
  for (const id of ["file", "file-more"]) $(id).addEventListener("change", (event) => { addFile(event.target.files[0]); event.target.value = ""; });
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    for (const file of event.dataTransfer.files) addFile(file);
  });
  addEventListener("paste", (event) => { for (const file of event.clipboardData?.files || []) addFile(file); });
  $("more-examples").addEventListener("click", () => { examplesInto($("more-list"), () => $("more").close()); $("more").showModal(); });
}

on("active found", () => { strip(); working(); });
