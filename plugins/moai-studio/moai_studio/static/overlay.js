// Draw findings on the picture: lines with a dark casing, so that the picture's own colours stay, and labels that cover
// neither each other nor small things. What has no place for its label has its number, which the table explains.

import { $, h, s } from "./dom.js";
import { colour, findings, on, picture, state, tell } from "./state.js";

const SMALL = 0.02;
const pen = document.createElement("canvas").getContext("2d");
pen.font = "600 12px system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif";
let moving = null; // {box, change, done}: the finding that is moved

export const isOn = (found) => !state.off.has(found.expert || found.role);

function size() {
  const image = $("image"), frame = $("frame").getBoundingClientRect(), box = image.getBoundingClientRect();
  return { width: box.width, height: box.height, left: box.left - frame.left - $("frame").clientLeft, top: box.top - frame.top - $("frame").clientTop };
}

export function draw() {
  const svg = $("overlay"), place = size();
  if (!place.width) return;
  svg.setAttribute("width", place.width);
  svg.setAttribute("height", place.height);
  svg.setAttribute("viewBox", `0 0 ${place.width} ${place.height}`);
  svg.style.left = `${place.left}px`;
  svg.style.top = `${place.top}px`;
  const shown = visible(), taken = [];
  svg.replaceChildren(...shown.map((one) => shape(one, place)));
  if (!moving) for (const one of order(shown)) label(svg, one, place, taken);
  if (moving) grips(svg, place);
  svg.setAttribute("aria-label", describe(shown));
}

const describe = (shown) => (shown.length ? `Findings on the picture: ${shown.slice(0, 40).map((one) => one.text).join(", ")}` : "No findings on the picture");

// Findings with a place, and how each is drawn.
function visible() {
  const all = findings().map((found, index) => ({ ...found, number: index + 1 }));
  const placed = all.filter((found) => found.box || found.polygon || found.outline || found.ends);
  const edited = Object.fromEntries(Object.entries(picture()?.edits.changed || {}));
  if (state.mode === "rests" && state.rests && state.rests.facts) return placed.flatMap((found) => weighed(found));
  return placed.filter((found) => isOn(found) || found.id === state.hot).map((found) => ({
    ...found, hue: found.expert === "you" ? "#ffffff" : colour(found.expert), width: 2, edited: found.expert === "you" || edited[found.origin],
    dim: state.hot && state.hot !== found.id ? "faint" : "",
  }));
}

function weighed(found) {
  const fact = state.rests.facts.find((one) => one.picture === state.active && one.finding === found.id);
  if (!fact) return [];
  const most = Math.max(...state.rests.facts.map((one) => one.fall), SMALL), strong = fact.fall >= SMALL;
  const pointed = state.rests.verdict.attended === found.id && state.rests.attendedIn === state.active;
  const points = Math.round(100 * fact.fall);
  if (!strong && !pointed && state.hot !== found.id) return found.ends ? [] : [{ ...found, hue: "#ffffff", width: 1.5, dim: "dim", text: "" }];
  const change = strong || fact.fall <= -SMALL ? ` ${points > 0 ? "−" : "+"}${Math.abs(points)}` : " 0";
  const named = fact.fall >= 0.25 * most || pointed || state.hot === found.id; // the others say their points in the table
  return [{
    ...found, text: named ? `${short(found.text)} ${pointed && !strong ? " attention only" : change}` : "", plain: true, hue: strong ? "#97a4ff" : "#ffffff", width: strong ? 1.5 + 5 * (fact.fall / most) : 2,
    dashed: !strong, score: 2 + fact.fall, dim: state.hot && state.hot !== found.id ? "dim" : "",
  }];
}

const short = (text) => (text.length > 28 ? `${text.slice(0, 27)}…` : text);

function shape(found, { width, height }) {
  const group = s("g", { class: found.dim || "" });
  const strong = found.id === state.hot, line = found.width + (strong ? 1.5 : 0);
  for (const [style, stroke, wide] of [["shape casing", null, line + 2.5], ["shape", found.hue, line]]) {
    const common = { class: style, ...(stroke ? { stroke } : {}), "stroke-width": wide, "stroke-linejoin": "round", ...(found.dashed && stroke ? { "stroke-dasharray": "5 4" } : {}) };
    if (found.ends) group.append(...arrow(found.ends, width, height, common));
    else if (found.outline && found.outline.length) group.append(s("path", { ...common, d: found.outline.map((ring) => path(ring, width, height)).join("") }));
    else if (found.polygon) group.append(s("path", { ...common, d: path(found.polygon, width, height) }));
    else {
      const [x0, y0, x1, y1] = pixels(found.box, width, height);
      group.append(s("rect", { ...common, x: x0, y: y0, width: Math.max(1, x1 - x0), height: Math.max(1, y1 - y0), rx: 3 }));
    }
  }
  return group;
}

const pixels = (box, width, height) => [box[0] * width, box[1] * height, box[2] * width, box[3] * height];
const path = (points, width, height) => `M${points.map(([x, y]) => `${(x * width).toFixed(1)} ${(y * height).toFixed(1)}`).join("L")}Z`;
const middle = (box) => [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];

function arrow([from, to], width, height, common) {
  const [ax, ay] = middle(pixels(from, width, height)), [bx, by] = middle(pixels(to, width, height));
  const length = Math.hypot(bx - ax, by - ay) || 1, ux = (bx - ax) / length, uy = (by - ay) / length;
  const head = Math.min(9, length / 2);
  const wing = (side) => `${bx - ux * head + uy * head * side * 0.6} ${by - uy * head - ux * head * side * 0.6}`;
  return [s("path", { ...common, d: `M${ax} ${ay}L${bx} ${by}M${wing(1)}L${bx} ${by}L${wing(-1)}` })];
}

// Objects before print before relations, what is sure before what is not, and what is pointed at before all.
function order(shown) {
  const rank = { object: 0, text: 1, relation: 2, note: 3 };
  return shown.filter((one) => one.text).sort((a, b) => (b.id === state.hot) - (a.id === state.hot) || (a.plain ? 0 : rank[a.kind] - rank[b.kind]) || b.score - a.score);
}

function label(svg, found, { width, height }, taken) {
  const box = found.ends ? [...middle(pixels(found.ends[0], width, height)), ...middle(pixels(found.ends[1], width, height))] : pixels(found.box || around(found.outline?.[0] || found.polygon), width, height);
  const named = found.kind === "text" && !found.plain ? `“${short(found.text)}”` : short(found.text);
  const choices = state.hot && state.hot !== found.id && !found.plain ? [] : [named, String(found.number)];
  for (const text of choices) {
    const wide = pen.measureText(text).width + 16, tall = 21;
    for (const [x, y] of places(box, wide, tall, found)) {
      const spot = [Math.max(0, Math.min(width - wide, x)), Math.max(0, Math.min(height - tall, y)), wide, tall];
      const crowded = taken.some((other) => overlap(spot, other));
      if (crowded && found.id !== state.hot) continue;
      taken.push(spot);
      svg.append(s("g", {}, s("rect", { class: "plate", x: spot[0], y: spot[1], width: wide, height: tall, rx: 6 }), s("rect", { x: spot[0], y: spot[1] + 4, width: 3, height: tall - 8, rx: 1.5, fill: found.hue }), textAt(spot[0] + 9, spot[1] + 14.5, text)));
      return;
    }
  }
}

function textAt(x, y, text) {
  const made = s("text", { x, y });
  made.textContent = text;
  return made;
}

function around(points) {
  const xs = points.map((point) => point[0]), ys = points.map((point) => point[1]);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

function places([x0, y0, x1, y1], wide, tall, found) {
  if (found.ends) return [0.35, 0.5, 0.65].map((part) => [x0 + (x1 - x0) * part - wide / 2, y0 + (y1 - y0) * part - tall / 2]);
  const above = y0 - tall - 3, below = y1 + 3, large = x1 - x0 > wide + 30 && y1 - y0 > tall + 30;
  const inside = [[x0 + 4, y0 + 4], [x1 - wide - 4, y0 + 4], [x0 + 4, y1 - tall - 4], [x1 - wide - 4, y1 - tall - 4]];
  const outside = [[x0, above], [x1 - wide, above], [x0, below], [x1 - wide, below], [x1 + 4, y0], [x0 - wide - 4, y0]];
  return large ? [...inside, ...outside] : [...outside, ...inside];
}

const overlap = (a, b) => a[0] < b[0] + b[2] + 2 && b[0] < a[0] + a[2] + 2 && a[1] < b[1] + b[3] + 2 && b[1] < a[1] + a[3] + 2;

// Moving a box: by the mouse, a finger, or the arrow keys (with Shift its lower right corner).
export function move(box, change, done) {
  moving = { box: [...box], change, done };
  $("overlay").classList.add("moving");
  draw();
  const grip = $("overlay").querySelector(".grip");
  grip?.focus();
}

export function stopMoving() {
  if (!moving) return;
  const { done } = moving;
  moving = null;
  $("overlay").classList.remove("moving");
  draw();
  done();
}

function grips(svg, { width, height }) {
  const [x0, y0, x1, y1] = pixels(moving.box, width, height);
  const body = s("rect", { class: "grip", x: x0, y: y0, width: x1 - x0, height: y1 - y0, tabindex: 0, role: "button", "aria-label": "Box: arrow keys move it, with Shift they stretch it, Enter ends" });
  const corner = s("rect", { class: "handle", x: x1 - 8, y: y1 - 8, width: 16, height: 16, rx: 4 });
  body.addEventListener("pointerdown", (event) => drag(event, width, height, false));
  corner.addEventListener("pointerdown", (event) => drag(event, width, height, true));
  body.addEventListener("keydown", keys);
  svg.append(body, corner);
}

function keys(event) {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === "Enter" || event.key === "Escape") { event.preventDefault(); stopMoving(); return; }
  if (!step) return;
  event.preventDefault();
  shift(moving.box, step[0] * 0.01, step[1] * 0.01, event.shiftKey);
  $("overlay").querySelector(".grip")?.focus();
}

function drag(event, width, height, stretch) {
  event.preventDefault();
  const from = [event.clientX, event.clientY], start = [...moving.box];
  const follow = (moved) => shift(start, (moved.clientX - from[0]) / width, (moved.clientY - from[1]) / height, stretch);
  const end = () => { removeEventListener("pointermove", follow); removeEventListener("pointerup", end); };
  addEventListener("pointermove", follow);
  addEventListener("pointerup", end);
}

function shift(box, right, down, stretch) {
  const [x0, y0, x1, y1] = box, keep = (value, low, high) => Math.max(low, Math.min(high, value));
  const dx = stretch ? right : keep(right, -x0, 1 - x1), dy = stretch ? down : keep(down, -y0, 1 - y1);
  const made = stretch ? [x0, y0, keep(x1 + dx, x0 + 0.01, 1), keep(y1 + dy, y0 + 0.01, 1)] : [x0 + dx, y0 + dy, x1 + dx, y1 + dy];
  moving.box = made.map((value) => Math.round(keep(value, 0, 1) * 10000) / 10000);
  moving.change(moving.box);
  draw();
}

export function point(id) {
  if (state.hot === id) return;
  state.hot = id;
  if (!moving) draw(); // else the box that is moved would lose the focus
}

// A button that shows its finding on the picture while it is pointed at.
export function pointing(element, id) {
  for (const event of ["mouseenter", "focusin"]) element.addEventListener(event, () => point(id));
  for (const event of ["mouseleave", "focusout"]) element.addEventListener(event, () => point(null));
  return element;
}

export function layers() {
  const all = findings(), names = [...new Set(all.map((found) => found.expert || found.role))];
  const failed = new Set((picture()?.found?.experts || []).filter((one) => one.failure).map((one) => one.name));
  $("layers").replaceChildren(...names.filter((name) => !failed.has(name)).map((name) => {
    const placed = all.filter((found) => (found.expert || found.role) === name && (found.box || found.polygon || found.ends || found.outline)).length;
    if (!placed) return null;
    return h("button", { type: "button", class: "layer", "aria-pressed": String(!state.off.has(name)), style: { "--colour": colour(name) }, onclick: () => { state.off.has(name) ? state.off.delete(name) : state.off.add(name); tell("layers"); } },
      h("span", { class: "dot", "aria-hidden": "true" }), name, h("span", { class: "count" }, String(placed)));
  }).filter(Boolean));
  const rests = state.rests && state.rests.facts;
  $("modes").hidden = !rests;
  $("layers").hidden = state.mode === "rests" && rests;
  $("legend").hidden = !(state.mode === "rests" && rests);
  const placed = new Set(all.filter((found) => found.box || found.polygon || found.ends || found.outline).map((found) => found.id));
  const unplaced = (rests || []).filter((fact) => fact.fall >= SMALL && fact.picture === state.active && !placed.has(fact.finding));
  $("legend").replaceChildren("The thicker a line, the more the answer’s probability falls without that fact. ",
    ...(unplaced.length ? [h("strong", {}, unplaced.map((fact) => `“${fact.text}” −${Math.round(100 * fact.fall)}`).join(", ")), " has no place in the picture."] : []));
  for (const button of $("modes").children) button.setAttribute("aria-pressed", String(button.dataset.mode === state.mode));
}

on("layers found active rests mode", () => {
  const focus = document.activeElement?.classList.contains("layer") ? document.activeElement.textContent : null;
  layers();
  draw();
  if (focus) [...$("layers").children].find((one) => one.textContent === focus)?.focus();
});
new ResizeObserver(() => draw()).observe($("image"));
