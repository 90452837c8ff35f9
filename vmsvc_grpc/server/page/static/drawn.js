// The views that are drawn anew as a whole: clients, and the server.

import { capital, element, empty, heading, list, plural } from "./elements.js";
import { showState } from "./states.js";

// A view that is drawn anew when its event has changed.
class DrawnView {
  constructor(name, title, draw) {
    this.name = name;
    this.words = title;
    this.draw = draw;
  }

  title() {
    return this.words;
  }

  request() {
    return { view: this.name };
  }

  start(main) {
    this.content = element("div", {}, element("p", { class: "quiet" }, "Reading …"));
    main.append(heading(this.words), this.content);
  }

  stop() {}

  reconnected() {}

  take(name, data) {
    if (name === this.name) this.content.replaceChildren(...this.draw(data));
  }

  key() {}
}

export class ClientsView extends DrawnView {
  constructor() {
    super("clients", "Clients", drawClients);
  }
}

function drawClients(data) {
  const intro = element("p", { class: "quiet" },
    `${plural(data.connections, "connection")}, ${plural(data.streams, "stream")} of endpoints` +
    (data.not_shown ? `; ${plural(data.not_shown, "stream is", "streams are")} not shown` : ""));
  if (!data.clients.length) {
    return [intro, empty("Nobody follows anything now.", "A client that watches services, or an Envoy, appears here as soon as it connects.")];
  }
  const row = (client) => element("tr", {},
    element("th", { scope: "row", class: "address" }, client.address),
    element("td", { "data-label": "User" }, client.user),
    element("td", { class: "number", "data-label": "Streams" }, String(client.streams)),
    element("td", { class: "texts" }, list(client.streams > client.follows.length
      ? [...client.follows, `and ${plural(client.streams - client.follows.length, "more stream")}`] : client.follows)));
  return [intro, element("div", { class: "scroll" }, element("table", { class: "cards" },
    element("caption", { class: "hidden" }, "Connected clients, and what each follows"),
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Address"), element("th", { scope: "col" }, "User"),
      element("th", { scope: "col", class: "number" }, "Streams"), element("th", { scope: "col" }, "Follows"))),
    element("tbody", {}, ...data.clients.map(row))))];
}

export class ServerView extends DrawnView {
  constructor() {
    super("server", "Server", drawServer);
  }
}

function drawServer(data) {
  const state = (source) => {
    const cell = element("td", { class: "state" });
    showState(cell, source.well ? { word: "Well", shape: "●", mood: "good" } : { word: "Not well", shape: "▲", mood: "bad" });
    return cell;
  };
  const row = (source) => element("tr", {},
    state(source), element("th", { scope: "row" }, source.what), element("td", { class: "texts" }, source.how),
    element("td", { "data-label": "Last heard of" }, source.silence_s === null ? "" : `${source.silence_s} s ago`));
  return [
    element("h2", {}, "Who writes"), element("p", {}, `${capital(data.writing)}.`),
    element("h2", {}, "What is read"),
    element("div", { class: "scroll" }, element("table", { class: "cards" },
      element("caption", { class: "hidden" }, "Sources, and how reading them goes"),
      element("thead", {}, element("tr", {}, ...["State", "Source", "How it goes", "Last heard of"].map((text) => element("th", { scope: "col" }, text)))),
      element("tbody", {}, ...data.sources.map(row)))),
  ];
}
