// The page of vmsvc-grpc: one view at a time, and going from one to another.
//
// Each view has `title`, `request`, `start`, `take(event, data)`, `reconnected`, `key` and `stop`.

import { byId } from "./elements.js";
import { place } from "./places.js";
import { forgetMarks } from "./news.js";
import { ServicesView } from "./services.js";
import { ServiceView } from "./service.js";
import { ProblemsView } from "./problems.js";
import { ClientsView, ServerView } from "./drawn.js";
import { follow } from "./stream.js";

const VIEWS = {
  __proto__: null, // `constructor` is no view.
  services: ServicesView, service: ServiceView, clients: ClientsView, problems: ProblemsView, server: ServerView,
};

let view = null;

function show() {
  const at = place(VIEWS);
  if (view) view.stop();
  forgetMarks();
  view = new VIEWS[at.view](at);
  const main = byId("main");
  main.replaceChildren();
  view.start(main);
  document.title = `${view.title()} – vmsvc-grpc`;
  const current = at.view === "service" ? "services" : at.view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === current) link.setAttribute("aria-current", at.view === current ? "page" : "true");
    else link.removeAttribute("aria-current");
  }
  follow(view);
}

window.addEventListener("hashchange", (event) => {
  if (location.hash === "#main") {
    // The skip link: it moves the focus, and is no view.
    history.replaceState(null, "", new URL(event.oldURL).hash || "#/");
    byId("main").focus();
    return;
  }
  show();
  scrollTo(0, view.scroll || 0);
  const title = document.querySelector("main h1");
  if (title) title.focus({ preventScroll: true });
});

history.scrollRestoration = "manual";

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && place(VIEWS).view !== "services" && !event.target.matches("input, select, textarea")) {
    event.preventDefault();
    location.hash = "#/";
    setTimeout(() => byId("filter") && byId("filter").focus(), 50);
    return;
  }
  view.key(event);
});

show();
