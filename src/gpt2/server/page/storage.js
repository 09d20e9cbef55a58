// The browser's storage: drafts and settings permanently, the API key for this tab. If the browser forbids storage, the
// page works but forgets everything when it is closed.

function orFallback(call, fallback) {
  try {
    return call();
  } catch {
    return fallback;
  }
}

/** Return access to a storage area. getArea: returns the area, or throws if the browser forbids storage. */
const createStore = (getArea) => ({
  get: (name) => orFallback(() => JSON.parse(getArea().getItem(`gpt2.${name}`)), null),
  /** Store a value. Returns false if it could not be stored, for example because the storage is full. */
  set: (name, value) => orFallback(() => {
    getArea().setItem(`gpt2.${name}`, JSON.stringify(value));
    return true;
  }, false),
  remove: (name) => orFallback(() => getArea().removeItem(`gpt2.${name}`)),
  names: (prefix) => orFallback(() => Object.keys(getArea()), [])
    .filter((name) => name.startsWith(`gpt2.${prefix}`)).map((name) => name.slice("gpt2.".length)),
});

export const localStore = createStore(() => localStorage);
export const sessionStore = createStore(() => sessionStorage);
