// What the browser keeps: drafts and settings for good, the key for the tab. Where it keeps nothing, all works but that.

function safely(call, otherwise) {
  try {
    return call();
  } catch {
    return otherwise;
  }
}

const kept = (area) => ({
  get: (name) => safely(() => JSON.parse(area().getItem(`gpt2.${name}`)), null),
  /** Whether it was kept: there may be no room. */
  set: (name, value) => safely(() => (area().setItem(`gpt2.${name}`, JSON.stringify(value)), true), false),
  remove: (name) => safely(() => area().removeItem(`gpt2.${name}`)),
  names: (beginning) => safely(() => Object.keys(area()), [])
    .filter((name) => name.startsWith(`gpt2.${beginning}`)).map((name) => name.slice(5)),
});

export const local = kept(() => localStorage);
export const session = kept(() => sessionStorage);
