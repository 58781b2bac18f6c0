// What was seen: all findings as a table, and the words that the language model is given.

import { $, fill, h, plural } from "./dom.js";
import { point, pointing } from "./overlay.js";
import { colour, findings, on, picture, state } from "./state.js";

const NAMES = { object: "thing", text: "print", relation: "relation", note: "sentence" };

function draw() {
  const one = picture(), all = findings(), body = $("seen-body");
  $("seen-hint").textContent = !one ? "" : one.found ? summary(all) : "the experts look…";
  if (!one) return fill(body, h("p", { class: "muted" }, "Findings appear here once there is a picture."));
  if (!one.found) return fill(body, h("p", { class: "muted" }, one.failed || "The experts look at the picture."));
  const words = (one.changed || one.found).words;
  fill(body,
    all.length ? table(all) : h("p", { class: "muted" }, "The experts found nothing in this picture."),
    words && h("div", {}, h("h3", {}, "In the words that the model reads"), h("p", { class: "words" }, words)));
}

function summary(all) {
  const experts = new Set(all.map((found) => found.expert)).size;
  const left = all.filter((found) => !found.read).length;
  return `${picture()?.changed ? "with your changes: " : ""}${plural(all.length, "finding")} by ${plural(experts, "expert")}${left ? `, ${left} more than the model’s words hold` : ""}`;
}

function table(all) {
  return h("table", { id: "findings" },
    h("caption", { class: "visually-hidden" }, "Findings"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col", class: "narrow-hide" }, "No."), h("th", { scope: "col" }, "Finding"), h("th", { scope: "col", class: "narrow-hide" }, "Kind"), h("th", { scope: "col" }, "Expert"), h("th", { scope: "col", class: "figure" }, "Score"))),
    h("tbody", {}, all.map((found, index) => pointing(h("tr", { "data-finding": found.id },
      h("td", { class: "muted narrow-hide" }, String(index + 1)),
      h("td", {}, h("button", { type: "button", class: "what", onclick: () => { point(found.id); $("frame").scrollIntoView({ block: "nearest", behavior: "smooth" }); } }, found.kind === "text" ? `“${found.text}”` : found.text),
        !found.read && h("span", { class: "tag", title: "It does not fit into the words that the model is given" }, "not read"), found.expert === "you" && h("span", { class: "tag" }, "yours")),
      h("td", { class: "muted narrow-hide" }, NAMES[found.kind]),
      h("td", {}, h("span", { class: "swatch", style: { "--colour": found.expert === "you" ? "var(--accent)" : colour(found.expert) }, "aria-hidden": "true" }), found.expert || "not said"),
      h("td", { class: "figure" }, found.score === null ? "" : found.score.toFixed(2))), found.id))));
}

on("found active rests mode", draw);
on("run", () => { if (!state.active) draw(); });
