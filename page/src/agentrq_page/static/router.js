/** Where one is, by the address's fragment: `#/sessions?status=idle`. The URL is the state of every view. */
import { signal } from "@preact/signals";

/** @typedef {{view: string, id: string, query: URLSearchParams}} Route */

/** @returns {Route} */
function read() {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [view = "", id = ""] = path.split("/");
  let decoded = id;
  try {
    decoded = decodeURIComponent(id);
  } catch {
    // what is no encoding is taken as it is
  }
  return { view: view || "sessions", id: decoded, query: new URLSearchParams(query) };
}

export const route = signal(read());
addEventListener("hashchange", () => {
  route.value = read();
});

/** @param {string} id */
export const sessionLink = (id) => `#/session/${encodeURIComponent(id)}`;

/**
 * Changes the query of the view; an empty value takes a name out.
 * @param {Record<string, string>} changes
 */
export function setQuery(changes) {
  const { view, id, query } = route.value;
  const made = new URLSearchParams(query);
  for (const [name, value] of Object.entries(changes)) {
    if (value) made.set(name, value);
    else made.delete(name);
  }
  const text = made.toString();
  history.replaceState(null, "", `#/${view}${id && `/${encodeURIComponent(id)}`}${text && `?${text}`}`);
  route.value = read();
}
