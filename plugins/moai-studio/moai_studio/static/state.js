// What the page holds, and who is told when it changes.

export const state = {
  runs: [], examples: [], run: null, // the open run: {run, card, answers, follows, derived}
  pictures: [], active: null, asked: new Set(), // ids of pictures; `asked` are those that the next question is about
  turns: [], // {role, text, pictures, probability, seconds, tokens, failures}
  off: new Set(), // experts whose layer is off
  mode: "seen", // or "rests"
  rests: null, // what the last answer rests on
  hot: null, // the finding that is pointed at
  busy: null, // the handle of the running answer
};

const told = new Map();
export function on(events, callback) {
  for (const event of events.split(" ")) told.set(event, [...(told.get(event) || []), callback]);
}
export function tell(event, detail) {
  for (const callback of told.get(event) || []) callback(detail);
}

export const picture = (id = state.active) => state.pictures.find((one) => one.id === id) || null;
// What an answer rests on is what was found; elsewhere the findings are those with the changes, where there are any.
export const findings = (one = picture()) => (one ? (state.mode === "seen" && one.changed?.findings) || one.found?.findings || [] : []);
export const numberOf = (id) => state.pictures.findIndex((one) => one.id === id) + 1;

export function lastAnswer() {
  const last = state.turns.at(-1);
  return last && last.role === "assistant" && !last.running ? last : null;
}

// The turns of the question that was asked last, as the server takes them.
export function asked() {
  const index = state.turns.findLastIndex((turn) => turn.role === "user");
  if (index < 0) return [];
  const from = state.turns[index].alone ? index : state.turns.findLastIndex((turn, at) => at <= index && turn.first);
  return state.turns.slice(Math.max(0, from), index + 1).map(({ role, text, pictures }) => ({ role, text, pictures: pictures || [] }));
}

// Edits of a picture as operations: additions first, so that their numbers stay.
export function operations(one) {
  const edits = one.edits;
  return [
    ...edits.added.map(({ text, box, kind }) => ({ do: "add", text, box, kind })),
    ...Object.entries(edits.changed).flatMap(([finding, edit]) => {
      if (edit.deleted) return [{ do: "delete", finding }];
      return [...(edit.text !== undefined ? [{ do: "write", finding, text: edit.text }] : []), ...(edit.box ? [{ do: "move", finding, box: edit.box }] : [])];
    }),
  ];
}
export const countEdits = (one) => (one ? one.edits.added.length + Object.keys(one.edits.changed).length : 0);
export const noEdits = () => ({ added: [], changed: {} });

const PALETTE = ["#3b82f6", "#f97316", "#10b981", "#d946ef", "#eab308", "#ef4444", "#06b6d4", "#84cc16", "#a78bfa", "#fb7185"];
export function colour(expert) {
  const names = state.run ? state.run.card.experts.map((one) => one.name) : [];
  const index = names.indexOf(expert);
  return index < 0 ? "#ffffff" : PALETTE[index % PALETTE.length];
}
