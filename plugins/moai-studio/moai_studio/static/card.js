// Details: the gates, tokens and seconds of the last answer, and the run itself.

import { $, fill, h, percent, s } from "./dom.js";
import { lastAnswer, on, state } from "./state.js";

const NAMES = { perception: "the experts’ words", image: "the image", words: "the question itself" };
const MODULES = { image: ["perception", "words", "image"], question: ["perception", "image", "words"] };
const TIMES = { perception: "Experts", waiting: "Waiting for others", first: "First word", answer: "Whole answer" };
const TOKENS = { prompt: "In the prompt", words: "Words of perception", auxiliary: "Compressed for the mixers" };
const CONDITIONS = { on: "Perception on", off: "Perception off", shuffled: "Another picture’s" };

function inside() {
  const answer = lastAnswer(), gates = state.rests?.gates;
  if (!answer?.seconds) return fill($("inside-body"), h("p", { class: "muted" }, "Ask a question first."));
  fill($("inside-body"),
    h("div", {}, h("h3", {}, "Time"), h("dl", { class: "facts" }, Object.entries(TIMES).filter(([key]) => answer.seconds[key] >= 0.005).map(([key, name]) => [h("dt", {}, name), h("dd", {}, `${answer.seconds[key].toFixed(2)} s`)]))),
    answer.tokens && h("div", {}, h("h3", {}, "Tokens"), h("dl", { class: "facts" }, Object.entries(TOKENS).map(([key, name]) => [h("dt", {}, name), h("dd", {}, String(answer.tokens[key]))]))),
    h("div", {}, h("h3", {}, "Gates of each layer"), gates ? gatesOf(gates) : h("p", { class: "muted" }, "They are read with “What it rests on”.")));
}

function gatesOf(gates) {
  if (!gates.length) return h("p", { class: "muted" }, "This run has no mixers.");
  return Object.keys(MODULES).filter((stream) => gates.some((layer) => layer[stream])).map((stream) => h("div", { class: "bars" },
    h("p", { class: "muted small" }, `What the ${stream === "image" ? "image’s" : "question’s"} tokens give weight to`),
    gates.map((layer) => h("div", { class: "line" }, h("span", {}, `Layer ${layer.layer}`),
      h("div", { class: "stack", role: "img", "aria-label": MODULES[stream].map((name) => `${NAMES[name]} ${percent(layer[stream][name])}`).join(", ") }, MODULES[stream].map((name) => h("i", { class: tone(name), style: { width: `${100 * layer[stream][name]}%` } }))),
      h("span", {}, percent(layer[stream].perception)))),
    h("p", {}, MODULES[stream].map((name) => h("span", { class: "key" }, h("i", { class: tone(name) }), NAMES[name])))));
}

const tone = (name) => ({ perception: "m0", image: "m1", words: "m2" })[name];

function run() {
  if (!state.run) return;
  const { card } = state.run, best = card.evaluations[0];
  $("card-hint").textContent = best ? `${percent(best.accuracy.on?.value ?? 0)} right with perception` : card.experts.length ? `${card.experts.length} experts` : "";
  fill($("card-body"),
    best && headline(best),
    card.evaluations.map((one) => evaluation(one)),
    Object.keys(card.facts).length > 0 && h("div", {}, h("h3", {}, "Facts"), h("dl", { class: "facts" }, Object.entries(card.facts).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))),
    h("div", {}, h("h3", {}, "Experts"), experts(card.experts)),
    card.curves.length > 0 && h("div", {}, h("h3", {}, "Training"), ["loss", "attention"].map((panel) => chart(panel, card.curves.filter((one) => one.panel === panel)))));
}

function headline({ accuracy, questions, data }) {
  const say = (name) => (100 * accuracy[name].value).toFixed(1);
  return h("p", { class: "headline" }, accuracy.on ? `${say("on")}\u00a0% right with perception${accuracy.off ? `, ${say("off")}\u00a0% without` : ""}${accuracy.shuffled ? `, ${say("shuffled")}\u00a0% with another picture’s` : ""}.` : "", " ", h("span", { class: "muted small" }, `${questions.toLocaleString("en")} questions of ${data}`));
}

function evaluation({ accuracy, data, split, questions }) {
  return h("div", { class: "bars" }, h("p", { class: "muted small" }, `${data}, split ${split}, ${questions.toLocaleString("en")} questions; beside each figure its 95 % interval`),
    Object.entries(accuracy).map(([name, one]) => h("div", { class: "line" }, h("span", {}, CONDITIONS[name] || name), h("div", { class: `meter${name === "on" ? "" : " grey"}` }, h("i", { style: { width: `${100 * one.value}%` } })), h("span", {}, `${(100 * one.value).toFixed(1)}\u00a0% `, h("span", { class: "muted" }, `${Math.round(100 * one.low)}–${Math.round(100 * one.high)}`)))));
}

const experts = (list) => h("table", {}, h("caption", { class: "visually-hidden" }, "Experts"), h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Expert"), h("th", { scope: "col" }, "Version"), h("th", { scope: "col" }, "Licence of code and weights"))),
  h("tbody", {}, list.map((one) => h("tr", {}, h("td", {}, h("strong", {}, one.name), h("div", { class: "muted small" }, [one.role, one.package].filter(Boolean).join(" · "))), h("td", {}, one.version), h("td", { class: "small" }, one.licence)))));

const LINES = ["var(--strong)", "var(--accent)", "var(--bad)", "var(--good)"];

function chart(panel, series) {
  if (!series.length) return null;
  const points = series.flatMap((one) => one.points), width = 520, height = 170, left = 34, low = 18;
  const steps = points.map(([step]) => step), most = Math.max(...steps), least = Math.min(...steps), all = points.map(([, value]) => value).sort((a, b) => a - b);
  const top = all[Math.floor(all.length * 0.98)] * 1.08 || 1; // a few first steps may be far above all others
  const at = ([step, value]) => `${(left + (width - left - 4) * ((step - least) / Math.max(1, most - least))).toFixed(1)} ${(4 + (height - low - 8) * (1 - Math.min(value, top) / top)).toFixed(1)}`;
  const drawn = s("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Training curves: ${panel}` });
  for (const part of [0, 0.5, 1]) {
    const y = 4 + (height - low - 8) * (1 - part), text = s("text", { x: left - 6, y: y + 4, "text-anchor": "end" });
    text.textContent = (top * part).toFixed(top > 20 ? 0 : 1);
    drawn.append(s("line", { class: "axis", x1: left, x2: width, y1: y, y2: y }), text);
  }
  const end = s("text", { x: width, y: height - 2, "text-anchor": "end" });
  end.textContent = `steps ${least.toLocaleString("en")} to ${most.toLocaleString("en")}`;
  drawn.append(end, ...series.map((one, index) => { const line = s("path", { d: `M${one.points.map(at).join("L")}` }); line.style.stroke = LINES[index % LINES.length]; return line; }));
  return h("div", {}, h("p", { class: "muted small" }, panel === "loss" ? "Loss" : "Attention supervision"), drawn, h("p", {}, series.map((one, index) => h("span", { class: "key" }, h("i", { style: { background: LINES[index % LINES.length] } }), one.name))));
}

on("turns rests gates", inside);
on("run", () => { run(); inside(); });
