// The view of one service: its VMs, why each is in it or not, and changes.

import { Part, byId, capital, clock, element, empty, facts, heading, list, plural, setText } from "./elements.js";
import { serviceHash } from "./places.js";
import { VERDICTS, difference, showState, stateOf } from "./states.js";
import { announce, mark } from "./news.js";

const LOG_MAX = 50;

export class ServiceView {
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
