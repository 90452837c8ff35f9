// The view of all services.

import { clock, element, empty, heading, plural, setText } from "./elements.js";
import { serviceHash } from "./places.js";
import { difference, showState, stateOf } from "./states.js";
import { announce, mark } from "./news.js";

const ROWS_STEP = 150; // Rows that are drawn at first, and more each time the end is reached.

export class ServicesView {
  constructor(at) {
    this.rows = new Map();
    this.shown = [];
    this.drawn = new Map();
    this.limit = ROWS_STEP;
    this.complete = false;
    this.filter = at.query.get("q") || "";
    this.sort = at.query.get("sort") in ORDERS ? at.query.get("sort") : "name";
    this.hash = location.hash || "#/";
    const kept = ServicesView.kept;
    if (kept) {
      // As after a pause: what was known is shown at once, and what is gone by now goes.
      this.rows = kept.rows;
      this.reconnected();
      if (kept.hash === this.hash) this.limit = kept.limit;
    }
  }

  title() {
    return "Services";
  }

  request() {
    return { view: "services" };
  }

  start(main) {
    this.input = element("input", {
      type: "search", id: "filter", autocomplete: "off", spellcheck: "false", value: this.filter,
      "aria-describedby": "shown", placeholder: "shop/web, refused, LoadBalancer, …",
    });
    this.select = element("select", { id: "sort" },
      element("option", { value: "name" }, "name"),
      element("option", { value: "state" }, "state, worst first"),
      element("option", { value: "vms" }, "number of VMs"),
      element("option", { value: "changed" }, "last change"));
    this.select.value = this.sort;
    this.count = element("p", { id: "shown", class: "quiet", role: "status" });
    this.body = element("tbody", {});
    this.table = element("table", { class: "services" },
      element("caption", { class: "hidden" }, "VirtualMachineServices: how many of their VMs are ready"),
      element("colgroup", {},
        element("col", { class: "of-state" }), element("col", {}), element("col", { class: "of-number" }),
        element("col", { class: "of-number" }), element("col", { class: "of-type" }), element("col", {}),
        element("col", { class: "of-news" })),
      element("thead", {}, element("tr", {},
        element("th", { scope: "col" }, "State"), element("th", { scope: "col" }, "Service"),
        element("th", { scope: "col", class: "number" }, "Ready"),
        element("th", { scope: "col", class: "number" }, "VMs"),
        element("th", { scope: "col" }, "Type"), element("th", { scope: "col" }, "Ports"),
        element("th", { scope: "col" }, "Last change seen"))),
      this.body);
    this.end = element("button", { type: "button", hidden: true }, "Show more");
    this.none = element("div", {});
    main.append(
      heading("Services"),
      element("div", { class: "tools" },
        element("label", { for: "filter" }, "Filter by name, state, type or address", this.input),
        element("label", { for: "sort" }, "Sort by", this.select)),
      this.count,
      element("div", { class: "scroll" }, this.table), this.none, this.end);
    this.input.addEventListener("input", () => this.chosen());
    this.select.addEventListener("change", () => this.chosen());
    this.end.addEventListener("click", () => this.more());
    this.seen = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) this.more();
    }, { rootMargin: "400px" });
    this.seen.observe(this.end);
    this.dirty = true;
    this.draw();
  }

  // Whoever comes back from a service finds the list where it was left.
  get scroll() {
    const kept = ServicesView.kept;
    return kept && kept.hash === this.hash ? kept.scroll : 0;
  }

  stop() {
    this.seen.disconnect();
    cancelAnimationFrame(this.frame);
    const known = this.complete || this.before ? this.rows : new Map();
    ServicesView.kept = { rows: known, limit: this.limit, hash: this.hash, scroll: scrollY };
  }

  reconnected() {
    // What the server has had meanwhile is sent again; what it does not send again is gone.
    this.before = new Set(this.rows.keys());
    this.complete = false;
  }

  take(name, data) {
    if (name === "rows") for (const row of data) this.put(row);
    if (name === "complete") {
      this.complete = true;
      for (const gone of this.before || []) this.put({ service: gone, gone: true });
      this.before = null;
    }
    if (name === "rows" || name === "complete") this.drawSoon();
  }

  put(row) {
    const before = this.rows.get(row.service);
    if (row.gone) {
      if (before) announce(`${row.service} is gone`);
      this.rows.delete(row.service);
      return;
    }
    if (this.before) this.before.delete(row.service);
    row.state = stateOf(row);
    row.text = [row.service, row.state.word, row.type, ...row.cluster_ips, ...row.ingress].join(" ").toLowerCase();
    row.news = before ? before.news : "";
    row.changed = before ? before.changed : 0;
    const what = this.complete || before ? difference(before, row) : "";
    if (what) {
      row.news = `${clock(new Date())} ${what}`;
      row.changed = Date.now() * 1000 + (ServicesView.order++ % 1000);
      row.fresh = true;
      announce(`${row.service} ${what}`);
    }
    this.rows.set(row.service, row);
  }

  chosen() {
    this.filter = this.input.value;
    this.sort = this.select.value;
    this.limit = ROWS_STEP;
    const query = new URLSearchParams();
    if (this.filter) query.set("q", this.filter);
    if (this.sort !== "name") query.set("sort", this.sort);
    this.hash = query.size ? `#/?${query}` : "#/";
    history.replaceState(null, "", this.hash);
    this.drawSoon();
  }

  more() {
    if (this.limit >= this.shown.length) return;
    this.limit += ROWS_STEP;
    this.drawSoon();
  }

  drawSoon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  draw() {
    const words = this.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [...this.rows.values()].filter((row) => words.every((word) => row.text.includes(word)));
    this.shown = found.sort(ORDERS[this.sort]);
    const visible = this.shown.slice(0, this.limit);
    const wanted = new Set(visible.map((row) => row.service));
    for (const [name, drawn] of this.drawn) {
      if (!wanted.has(name)) {
        drawn.tr.remove();
        this.drawn.delete(name);
      }
    }
    let next = this.body.firstChild;
    for (const row of visible) {
      const tr = this.drawRow(row);
      if (tr === next) next = next.nextSibling;
      else this.body.insertBefore(tr, next);
    }
    this.table.setAttribute("aria-rowcount", String(this.shown.length + 1));
    this.end.hidden = this.shown.length <= this.limit;
    this.say();
  }

  say() {
    const all = this.rows.size;
    if (!this.complete && !all) setText(this.count, "Reading the services …");
    else if (this.filter.trim()) setText(this.count, `${this.shown.length} of ${plural(all, "service")}`);
    else setText(this.count, plural(all, "service") + (this.complete || this.before ? "" : ", reading …"));
    this.table.hidden = !this.shown.length;
    if (this.shown.length || !this.complete) {
      this.none.replaceChildren();
    } else if (!this.none.firstChild || this.none.dataset.filter !== this.filter) {
      this.none.dataset.filter = this.filter;
      this.none.replaceChildren(all
        ? empty(`No service matches “${this.filter}”.`, "Press Escape in the filter to see all of them.")
        : empty("There is no VirtualMachineService yet.",
          "Create one in the cluster, or put its manifest into the directory that is served: it appears here at once."));
    }
  }

  drawRow(row) {
    let drawn = this.drawn.get(row.service);
    if (!drawn) {
      drawn = this.newRow(row.service);
      this.drawn.set(row.service, drawn);
    }
    if (drawn.row === row) return drawn.tr;
    drawn.row = row;
    showState(drawn.state, row.state);
    setText(drawn.ready, String(row.ready));
    setText(drawn.vms, String(row.matching));
    setText(drawn.type, row.type);
    setText(drawn.ports, row.ports.join(", ") + (row.ports_more ? ` and ${row.ports_more} more` : ""));
    setText(drawn.news, row.news);
    if (row.fresh) {
      row.fresh = false;
      mark(drawn.tr);
    }
    return drawn.tr;
  }

  newRow(name) {
    const drawn = {
      state: element("td", { class: "state" }),
      ready: element("td", { class: "number", "data-label": "Ready" }),
      vms: element("td", { class: "number", "data-label": "VMs" }),
      type: element("td", { "data-label": "Type" }),
      ports: element("td", { "data-label": "Ports" }),
      news: element("td", { class: "when wide" }),
    };
    drawn.tr = element("tr", {}, drawn.state,
      element("th", { scope: "row" }, element("a", { href: serviceHash(name) }, name)),
      drawn.ready, drawn.vms, drawn.type, drawn.ports, drawn.news);
    return drawn;
  }

  key(event) {
    if (event.key === "/" && event.target !== this.input) {
      event.preventDefault();
      this.input.focus();
      this.input.select();
    } else if (event.key === "Escape" && this.filter) {
      this.input.value = "";
      this.chosen();
      this.input.focus();
    } else if (event.key === "Enter" && event.target === this.input && this.shown.length) {
      location.hash = serviceHash(this.shown[0].service);
    } else {
      moveRow(event, this.body, this.input);
    }
  }
}

ServicesView.order = 0;
ServicesView.kept = null;

const byName = (a, b) => (a.service < b.service ? -1 : a.service > b.service ? 1 : 0);
const ORDERS = {
  __proto__: null, // `constructor` is no order.
  name: byName,
  state: (a, b) => a.state.order - b.state.order || byName(a, b),
  vms: (a, b) => b.matching - a.matching || byName(a, b),
  changed: (a, b) => b.changed - a.changed || byName(a, b),
};

function moveRow(event, body, input) {
  const typing = event.target.matches("input, select, textarea");
  const down = event.key === "ArrowDown" || (event.key === "j" && !typing);
  const up = event.key === "ArrowUp" || (event.key === "k" && !typing);
  if ((!down && !up) || event.target.matches("select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const links = [...body.querySelectorAll("th a")];
  const at = links.indexOf(document.activeElement);
  const next = at < 0 ? (down ? 0 : -1) : at + (down ? 1 : -1);
  event.preventDefault();
  if (links[next]) links[next].focus();
  else if (up && input) input.focus();
}
