// What a state is called, and how two differ. Words and shapes; colour only repeats them.

import { setText } from "./elements.js";

export function stateOf(row) {
  if (row.refused) return { word: "Refused", shape: "✕", mood: "bad", order: 0 };
  if (row.matching === 0) return { word: "No VMs", shape: "–", mood: "none", order: 3 };
  if (row.ready === 0) return { word: "None ready", shape: "○", mood: "bad", order: 1 };
  if (row.ready < row.matching) return { word: "Partly ready", shape: "◐", mood: "bad", order: 2 };
  return { word: "Ready", shape: "●", mood: "good", order: 4 };
}

export const VERDICTS = {
  __proto__: null,
  READY: { word: "Ready", shape: "●", mood: "good" },
  NOT_READY: { word: "Not ready", shape: "○", mood: "bad" },
  NO_ADDRESS: { word: "No address", shape: "○", mood: "bad" },
  LABELS_DIFFER: { word: "Not selected", shape: "–", mood: "none" },
  DELETING: { word: "Being deleted", shape: "–", mood: "none" },
  INVALID: { word: "Cannot be read", shape: "✕", mood: "bad" },
  SERVICE_REFUSED: { word: "Not served", shape: "✕", mood: "bad" },
};

export function showState(cell, state) {
  setText(cell, `${state.shape} ${state.word}`);
  cell.dataset.mood = state.mood;
}

export function difference(before, row) {
  if (!before) return "is new";
  const found = [];
  if (before.state.word !== row.state.word) found.push(`is ${row.state.word.toLowerCase()}`);
  if (before.ready !== row.ready) found.push(`${before.ready} → ${row.ready} ready`);
  if (before.matching !== row.matching) found.push(`${before.matching} → ${row.matching} VMs`);
  if (before.type !== row.type) found.push(`type ${row.type}`);
  if (before.ports.join() !== row.ports.join()) found.push("ports changed");
  return found.join(", ");
}
