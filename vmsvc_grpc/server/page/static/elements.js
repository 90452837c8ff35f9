// Elements, and words in them.
//
// Text of others becomes text and nothing else: `textContent`, and attributes that hold no markup.

export function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined) made.setAttribute(key, String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const byId = (id) => document.getElementById(id);

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function list(texts) {
  return texts.length === 1
    ? document.createTextNode(texts[0])
    : element("ul", {}, ...texts.map((text) => element("li", {}, text)));
}

export function facts(pairs) {
  return pairs
    .filter(([, value]) => value !== "" && value !== null)
    .map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
}

// An element whose content is drawn anew when what it shows has changed, and by nobody else.
export class Part {
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

export function clock(date) {
  return date.toLocaleTimeString(undefined, { hour12: false });
}

export function plural(count, one, many) {
  return `${count} ${count === 1 ? one : many || one + "s"}`;
}

export function empty(...lines) {
  return element("div", { class: "empty" }, ...lines.map((line) => element("p", {}, line)));
}

export function heading(text) {
  return element("h1", { tabindex: -1 }, text);
}

export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
