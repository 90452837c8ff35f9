// The view of all that is wrong.

import { Part, element, empty, heading, list, plural } from "./elements.js";
import { serviceHash } from "./places.js";

export class ProblemsView {
  title() {
    return "Problems";
  }

  request() {
    return { view: "problems" };
  }

  start(main) {
    this.content = new Part("div", {}, element("p", { class: "quiet" }, "Reading the problems …"));
    main.append(heading("Problems"), this.content.element);
  }

  stop() {}

  reconnected() {}

  take(name, data) {
    if (name === "status") this.troubles = data.troubles;
    if (name === "problems") this.problems = data;
    if (!this.problems || !this.troubles) return;
    this.content.show([this.troubles, this.problems], () => this.parts());
  }

  parts() {
    const left = this.problems.count - this.problems.objects.length;
    const parts = [];
    if (this.troubles.length) {
      parts.push(element("h2", {}, "Reading and writing"), element("ul", {}, ...this.troubles.map((text) => element("li", { class: "texts" }, text))));
    }
    if (this.problems.objects.length) {
      parts.push(element("h2", {}, "Objects"), element("table", { class: "cards" },
        element("caption", {}, plural(this.problems.count, "object has", "objects have") + " a problem" + (left ? `; ${left} more are not shown, the log has each` : "")),
        element("thead", {}, element("tr", {}, ...["Kind", "Name", "What is wrong"].map((text) => element("th", { scope: "col" }, text)))),
        element("tbody", {}, ...this.problems.objects.map(problemRow))));
    }
    if (!parts.length) parts.push(empty("Nothing is wrong.", "Refused services, objects that cannot be read, and what cannot be written would be here."));
    return parts;
  }

  key() {}
}

function problemRow([kind, name, texts]) {
  const link = kind === "VirtualMachineService" ? element("a", { href: serviceHash(name) }, name) : name;
  return element("tr", {}, element("td", { "data-label": "Kind" }, kind), element("th", { scope: "row" }, link), element("td", { class: "texts" }, list(texts)));
}
