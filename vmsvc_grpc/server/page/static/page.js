// The page of vmsvc-grpc: one stream of events, and one view at a time.
//
// Text of others becomes text and nothing else: `textContent`, and attributes that hold no markup.
"use strict";

const NEWS_MS = 6000; // How long a change is marked.
const ROWS_STEP = 150; // Rows that are drawn at first, and more each time the end is reached.
const SILENCE_MS = 11000; // The server sends something every 5 s.
const RETRY_MS = [500, 1000, 2000, 5000];
const REFUSED_MS = 10000; // It may be that too many pages are open.
const LOG_MAX = 50;
const HIDDEN_MS = 30000; // A page that nobody sees is sent nothing after this long.

// -- Elements --

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined) made.setAttribute(key, String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const byId = (id) => document.getElementById(id);

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function list(texts) {
  return texts.length === 1
    ? document.createTextNode(texts[0])
    : element("ul", {}, ...texts.map((text) => element("li", {}, text)));
}

function facts(pairs) {
  return pairs
    .filter(([, value]) => value !== "" && value !== null)
    .map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
}

// An element whose content is drawn anew when what it shows has changed, and by nobody else.
class Part {
  constructor(name, attributes, ...children) {
    this.element = element(name, attributes, ...children);
    this.shown = null;
  }

  show(what, draw) {
    const shown = JSON.stringify(what);
    if (shown === this.shown) return;
    this.shown = shown;
    this.element.replaceChildren(...draw());
  }

  clear() {
    this.show(null, () => []);
  }
}

function clock(date) {
  return date.toLocaleTimeString(undefined, { hour12: false });
}

function plural(count, one, many) {
  return `${count} ${count === 1 ? one : many || one + "s"}`;
}

// -- Where we are: #/service/shop/web?vm=web-7 --

function place() {
  const hash = location.hash.startsWith("#/") ? location.hash.slice(2) : "";
  const mark = hash.indexOf("?");
  const path = (mark < 0 ? hash : hash.slice(0, mark)).split("/").map(decoded);
  const query = new URLSearchParams(mark < 0 ? "" : hash.slice(mark + 1));
  if (path[0] === "service") return { view: "service", name: path.slice(1).join("/"), query };
  return { view: path[0] in VIEWS ? path[0] : "services", query };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function serviceHash(name, query) {
  const path = name.split("/").map(encodeURIComponent).join("/");
  const more = query ? `?${new URLSearchParams(query)}` : "";
  return `#/service/${path}${more}`;
}

// -- What a state is called. Words and shapes; colour only repeats them. --

function stateOf(row) {
  if (row.refused) return { word: "Refused", shape: "✕", mood: "bad", order: 0 };
  if (row.matching === 0) return { word: "No VMs", shape: "–", mood: "none", order: 3 };
  if (row.ready === 0) return { word: "None ready", shape: "○", mood: "bad", order: 1 };
  if (row.ready < row.matching) return { word: "Partly ready", shape: "◐", mood: "bad", order: 2 };
  return { word: "Ready", shape: "●", mood: "good", order: 4 };
}

const VERDICTS = {
  __proto__: null,
  READY: { word: "Ready", shape: "●", mood: "good" },
  NOT_READY: { word: "Not ready", shape: "○", mood: "bad" },
  NO_ADDRESS: { word: "No address", shape: "○", mood: "bad" },
  LABELS_DIFFER: { word: "Not selected", shape: "–", mood: "none" },
  DELETING: { word: "Being deleted", shape: "–", mood: "none" },
  INVALID: { word: "Cannot be read", shape: "✕", mood: "bad" },
  SERVICE_REFUSED: { word: "Not served", shape: "✕", mood: "bad" },
};

function showState(cell, state) {
  setText(cell, `${state.shape} ${state.word}`);
  cell.dataset.mood = state.mood;
}

// -- What is new, marked for some seconds --

const marked = new Map();

function mark(row) {
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

function announce(text) {
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

// -- Views: each has `start`, `take(event, data)` and `stop` --

function empty(...lines) {
  return element("div", { class: "empty" }, ...lines.map((line) => element("p", {}, line)));
}

function heading(text) {
  return element("h1", { tabindex: -1 }, text);
}

class ServicesView {
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

function difference(before, row) {
  if (!before) return "is new";
  const found = [];
  if (before.state.word !== row.state.word) found.push(`is ${row.state.word.toLowerCase()}`);
  if (before.ready !== row.ready) found.push(`${before.ready} → ${row.ready} ready`);
  if (before.matching !== row.matching) found.push(`${before.matching} → ${row.matching} VMs`);
  if (before.type !== row.type) found.push(`type ${row.type}`);
  if (before.ports.join() !== row.ports.join()) found.push("ports changed");
  return found.join(", ");
}

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

class ServiceView {
  constructor(at) {
    this.name = at.name;
    this.vm = at.query.get("vm") || "";
    this.after = at.query.get("after") || "";
    this.drawn = new Map();
    this.vms = null;
  }

  title() {
    return this.name;
  }

  request() {
    return { view: "service", name: this.name, vm: this.vm, after: this.after };
  }

  start(main) {
    this.state = element("p", { class: "state", id: "state" });
    this.problems = new Part("div", {});
    this.facts = new Part("dl", { class: "facts" });
    this.none = new Part("div", {}, element("p", { class: "quiet" }, "Reading the service …"));
    this.caption = element("caption", {});
    this.body = element("tbody", {});
    this.table = element("table", { class: "vms", hidden: true },
      this.caption,
      element("thead", {}, element("tr", {},
        ...["State", "VM", "Address", "Zone", "Why", "Last change seen"].map((text) => element("th", { scope: "col" }, text)))),
      this.body);
    this.pages = new Part("p", {});
    this.log = element("ol", { class: "log", reversed: true });
    this.quiet = element("p", { class: "quiet" }, "None since this page was opened.");
    this.ask = element("form", { class: "tools" },
      element("label", { for: "vm" }, "Why is a VM in it, or not? Name of the VM",
        element("input", { type: "text", id: "vm", autocomplete: "off", spellcheck: "false", value: this.vm })),
      element("button", { type: "submit" }, "Explain"),
      this.vm ? element("a", { href: serviceHash(this.name) }, "All VMs of the service") : null);
    this.ask.addEventListener("submit", (event) => {
      event.preventDefault();
      const vm = byId("vm").value.trim();
      location.hash = serviceHash(this.name, vm ? { vm } : null);
    });
    main.append(
      element("p", {}, element("a", { href: "#/" }, "← All services")),
      heading(this.name), this.state, this.problems.element, this.facts.element,
      element("h2", {}, "VMs"), this.ask, this.none.element, element("div", { class: "scroll" }, this.table), this.pages.element,
      element("h2", {}, "Changes"), this.quiet, this.log);
  }

  stop() {}

  reconnected() {}

  take(name, data) {
    if (name !== "service") return;
    if (data.absent !== undefined) this.absent(data);
    else this.there(data);
  }

  absent(data) {
    if (this.summary) this.note(`${this.name} is gone`);
    this.summary = null;
    this.vms = null;
    this.state.textContent = "✕ Not there";
    this.state.dataset.mood = "bad";
    document.title = `${this.name}: not there – vmsvc-grpc`;
    this.table.hidden = true;
    for (const part of [this.problems, this.facts, this.pages]) part.clear();
    const [namespace] = this.name.split("/");
    this.none.show({ absent: data.absent }, () => [element("div", { class: "empty" },
      element("p", {}, `${capital(data.absent)}.`),
      element("p", {}, "It is shown here as soon as it is created. Or see ",
        element("a", { href: `#/?q=${encodeURIComponent(`${namespace}/`)}` }, `the services of namespace ${namespace}`), "."))]);
  }

  there(data) {
    const summary = data.summary;
    if (this.summary === null) this.note(`${this.name} is there`);
    const state = summary ? stateOf(summary) : { word: "Cannot be read", shape: "✕", mood: "bad" };
    const counts = summary && !summary.refused && data.matching ? `: ${data.ready} of ${plural(data.matching, "VM")} ready` : "";
    setText(this.state, `${state.shape} ${state.word}${counts}`);
    this.state.dataset.mood = state.mood;
    if (summary && this.summary) {
      const what = difference({ ...this.summary, state: stateOf(this.summary) }, { ...summary, state });
      if (what) this.note(`${this.name} ${what}`);
    }
    this.summary = summary || undefined;
    document.title = `${this.name}: ${state.word.toLowerCase()}, ${data.ready}/${data.matching} – vmsvc-grpc`;
    this.showProblems(data);
    this.showFacts(data, summary);
    this.showVms(data);
  }

  showProblems(data) {
    const refused = Boolean(data.summary && data.summary.refused);
    const draw = () => [element("section", { class: "problems", "aria-labelledby": "wrong" },
      element("h2", { id: "wrong" }, refused ? "✕ Refused" : "▲ What is wrong"),
      element("ul", {}, ...data.problems.map(([field, message]) =>
        element("li", {}, element("span", { class: "field" }, field), ` ${message}`))),
      refused ? element("p", {}, data.serving_last_valid
        ? "Until it is mended, the last valid specification is served."
        : "Nothing is served of it until it is mended.") : null)];
    this.problems.show([data.problems, data.serving_last_valid, refused], data.problems.length ? draw : () => []);
  }

  showFacts(data, summary) {
    const selector = Object.entries(data.selector).map(([key, value]) => `${key}=${value}`).join(", ");
    const near = data.near_misses ? plural(data.near_misses, "VM") + (data.near_misses_incomplete ? " or more" : "") : "";
    const pairs = [
      ["Selector", selector || "none: it selects no VM"],
      ["Type", summary ? summary.type : ""],
      ["Ports", summary ? summary.ports.join(", ") + (summary.ports_more ? ` and ${summary.ports_more} more` : "") : ""],
      ["Cluster address", summary ? headless(summary.cluster_ips.join(", ")) : ""],
      ["Load balancer", summary ? summary.ingress.join(", ") : ""],
      ["Address families", data.families.join(", ")],
      ["Nearly selected", near],
      ["VMs here that cannot be read", data.unreadable ? String(data.unreadable) : ""],
    ];
    this.facts.show(pairs, () => facts(pairs));
  }

  showVms(data) {
    const first = this.vms === null;
    const now = new Map(data.vms.map((vm) => [vm.name, vm]));
    if (!first) {
      for (const [name, vm] of this.vms) if (!now.has(name)) this.note(`${name} is not shown any more (was ${VERDICTS[vm.verdict].word.toLowerCase()})`);
    }
    for (const [name, drawn] of this.drawn) {
      if (!now.has(name)) {
        drawn.tr.remove();
        this.drawn.delete(name);
      }
    }
    let next = this.body.firstChild;
    for (const vm of data.vms) {
      const tr = this.drawVm(vm, first);
      if (tr === next) next = next.nextSibling;
      else this.body.insertBefore(tr, next);
    }
    this.vms = now;
    this.table.hidden = !data.vms.length;
    setText(this.caption, this.vm ? `VM ${this.vm}` : counted(data));
    this.showNone(data);
    this.showPages(data);
  }

  showNone(data) {
    const lines = [];
    if (data.no_vm) lines.push(`${capital(data.no_vm)}.`, "Check its name; a service selects VMs of its own namespace only. This is shown anew as soon as it is created.");
    else if (!data.matching && !this.vm) {
      if (Object.keys(data.selector).length) lines.push(`The selector matches no VM of this namespace${data.vms.length ? "; these come near" : ", and none comes near"}.`, "Give VMs its labels, or ask about a VM by its name above.");
      else lines.push("The service has no selector, so it selects no VM.", "Its endpoints are whatever others put into the Endpoints of its name.");
    }
    this.none.show(lines, () => (lines.length ? [empty(...lines)] : []));
  }

  showPages(data) {
    this.pages.show({ next: data.next }, () => [
      ...(this.after ? [element("a", { href: serviceHash(this.name) }, "First VMs"), " "] : []),
      ...(data.next ? [element("a", { href: serviceHash(this.name, { after: data.next }) }, "More VMs")] : []),
    ]);
  }

  drawVm(vm, first) {
    let drawn = this.drawn.get(vm.name);
    const isNew = !drawn;
    if (!drawn) {
      drawn = {
        state: element("td", { class: "state" }),
        address: element("td", { class: "address", "data-label": "Address" }),
        zone: element("td", { class: "zone", "data-label": "Zone" }),
        why: element("td", { class: "texts" }),
        news: element("td", { class: "when wide" }),
      };
      drawn.tr = element("tr", {}, drawn.state, element("th", { scope: "row" }, vm.name), drawn.address, drawn.zone, drawn.why, drawn.news);
      this.drawn.set(vm.name, drawn);
    }
    showState(drawn.state, VERDICTS[vm.verdict] || { word: vm.verdict, shape: "?", mood: "none" });
    const addresses = vm.addresses.join(", ");
    setText(drawn.address, addresses);
    setText(drawn.zone, vm.zone);
    const why = vm.reasons.join("\n");
    if (drawn.reasons !== why) {
      drawn.reasons = why;
      drawn.why.replaceChildren(list(vm.reasons));
    }
    const what = isNew ? "is new here" : vmDifference(drawn.vm, vm);
    drawn.vm = vm;
    if (what && !first) {
      setText(drawn.news, `${clock(new Date())} ${what}`);
      mark(drawn.tr);
      this.note(`${vm.name} ${what}`);
    }
    return drawn.tr;
  }

  note(text) {
    this.quiet.hidden = true;
    this.log.prepend(element("li", {}, element("span", { class: "when" }, clock(new Date())), ` ${text}`));
    while (this.log.children.length > LOG_MAX) this.log.lastChild.remove();
    announce(text);
  }

  key(event) {
    if (event.key === "Escape") location.hash = "#/";
  }
}

function counted(data) {
  const selected = `${plural(data.matching, "VM is", "VMs are")} selected`;
  // Of a service that has never been valid, nothing is worked out.
  if (data.summary && data.summary.refused && !data.serving_last_valid) return selected;
  const without = data.matching - data.ready - data.not_ready;
  return `${selected}: ${data.ready} ready, ${data.not_ready} not ready` + (without ? `, ${without} without an address` : "");
}

function headless(addresses) {
  return addresses === "None" ? "None (headless)" : addresses;
}

function vmDifference(before, vm) {
  const found = [];
  if (before.verdict !== vm.verdict) found.push(`is ${(VERDICTS[vm.verdict] || { word: vm.verdict }).word.toLowerCase()}`);
  if (before.addresses.join() !== vm.addresses.join()) found.push(vm.addresses.length ? `has address ${vm.addresses.join(", ")}` : "has no address");
  if (before.zone !== vm.zone) found.push(`is in zone ${vm.zone || "(none)"}`);
  return found.join(", ");
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

class ProblemsView {
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

class ClientsView extends DrawnView {
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

class ServerView extends DrawnView {
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

const VIEWS = {
  __proto__: null, // `constructor` is no view.
  services: ServicesView, service: ServiceView, clients: ClientsView, problems: ProblemsView, server: ServerView,
};

// -- The stream of events --

let view = null;
let source = null;
let failures = 0;
let retry = 0;
let silence = 0;
let awaySince = null;
let everLive = false;

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

// -- Going from view to view --

function show() {
  const at = place();
  if (view) view.stop();
  for (const timer of marked.values()) clearTimeout(timer);
  marked.clear();
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
  failures = 0;
  connect();
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
  if (event.key === "/" && place().view !== "services" && !event.target.matches("input, select, textarea")) {
    event.preventDefault();
    location.hash = "#/";
    setTimeout(() => byId("filter") && byId("filter").focus(), 50);
    return;
  }
  view.key(event);
});

show();
