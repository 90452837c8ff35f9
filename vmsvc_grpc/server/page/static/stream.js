// The stream of events, for one view at a time.

import { byId, capital, clock, setText } from "./elements.js";
import { announce } from "./news.js";

const SILENCE_MS = 11000; // The server sends something every 5 s.
const RETRY_MS = [500, 1000, 2000, 5000];
const REFUSED_MS = 10000; // It may be that too many pages are open.
const HIDDEN_MS = 30000; // A page that nobody sees is sent nothing after this long.

let view = null;
let source = null;
let failures = 0;
let retry = 0;
let silence = 0;
let awaySince = null;
let everLive = false;

// Have the events of a view come to it, and to no other.
export function follow(next) {
  view = next;
  failures = 0;
  connect();
}

function connect() {
  disconnect();
  const request = Object.entries(view.request()).filter(([, value]) => value);
  source = new EventSource(`events?${new URLSearchParams(request)}`);
  source.onerror = lost;
  for (const name of ["status", "rows", "complete", "service", "problems", "clients", "server", "beat"]) {
    source.addEventListener(name, (event) => taken(name, JSON.parse(event.data)));
  }
  source.addEventListener("refused", (event) => {
    disconnect();
    connection("refused", "Not shown");
    notice(`${capital(JSON.parse(event.data).text)}.`);
    retry = setTimeout(again, REFUSED_MS);
  });
  source.addEventListener("ending", lost);
  listen();
}

function disconnect() {
  clearTimeout(retry);
  clearTimeout(silence);
  if (source) source.close();
  source = null;
}

function listen() {
  clearTimeout(silence);
  silence = setTimeout(lost, SILENCE_MS);
}

function taken(name, data) {
  listen();
  if (document.body.dataset.state !== "live") {
    const again = awaySince !== null;
    failures = 0;
    awaySince = null;
    everLive = true;
    notice("");
    connection("live", "Live");
    if (again) announce("Live again");
  }
  if (name === "status") showStatus(data);
  view.take(name, data);
}

function lost() {
  disconnect();
  awaySince = awaySince || new Date();
  const wait = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)];
  failures += 1;
  connection("away", failures < 2 ? "Reconnecting" : `Server away since ${clock(awaySince)}`);
  if (failures === 2 && byId("notice").hidden) {
    notice(everLive
      ? "The server does not answer. What is shown is as it was then; it goes on by itself once the server is back. Behind kubectl port-forward, start that again."
      : "The server does not answer. Is it running, and is its --page-listen this address?");
  }
  retry = setTimeout(again, wait);
}

function again() {
  view.reconnected();
  connect();
}

function connection(state, text) {
  const shown = byId("connection");
  shown.dataset.state = state;
  document.body.dataset.state = state;
  setText(shown, text);
}

function notice(text) {
  const shown = byId("notice");
  setText(shown, text);
  shown.hidden = !text;
}

function showStatus(status) {
  setText(byId("count-services"), String(status.services));
  setText(byId("count-problems"), String(status.problems));
  if (status.clients !== undefined) setText(byId("count-clients"), String(status.clients));
  setText(byId("about"), `vmsvc-grpc ${status.version}, reading ${status.reads}`);
  notice(status.not_ready ? `The server is not ready: ${status.not_ready}.` : "");
}

// A page that nobody sees need not be sent anything; it begins anew when it is seen.
let hiding = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(disconnect, HIDDEN_MS);
  else if (!source) again();
});
