// What is new: marked for some seconds, and said to screen readers.

import { byId } from "./elements.js";

const NEWS_MS = 6000; // How long a change is marked.

const marked = new Map();

export function mark(row) {
  clearTimeout(marked.get(row));
  row.classList.add("news");
  marked.set(row, setTimeout(() => {
    row.classList.remove("news");
    marked.delete(row);
  }, NEWS_MS));
}

// A screen reader is told of changes now and then, and not of each of hundreds.
let announcements = [];
let announcing = 0;

export function announce(text) {
  announcements.push(text);
  if (announcing) return;
  announcing = setTimeout(() => {
    const count = announcements.length;
    const said = count > 3 ? `${count} changes, the last: ${announcements[count - 1]}` : announcements.join(". ");
    byId("announcer").textContent = said;
    announcements = [];
    announcing = 0;
  }, 2000);
}

export function forgetMarks() {
  for (const timer of marked.values()) clearTimeout(timer);
  marked.clear();
}
