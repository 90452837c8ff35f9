// Where we are: #/service/shop/web?vm=web-7

// The view that the address names, one of `views`; that of all services if it names none.
export function place(views) {
  const hash = location.hash.startsWith("#/") ? location.hash.slice(2) : "";
  const mark = hash.indexOf("?");
  const path = (mark < 0 ? hash : hash.slice(0, mark)).split("/").map(decoded);
  const query = new URLSearchParams(mark < 0 ? "" : hash.slice(mark + 1));
  if (path[0] === "service") return { view: "service", name: path.slice(1).join("/"), query };
  return { view: path[0] in views ? path[0] : "services", query };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function serviceHash(name, query) {
  const path = name.split("/").map(encodeURIComponent).join("/");
  const more = query ? `?${new URLSearchParams(query)}` : "";
  return `#/service/${path}${more}`;
}
