// Makes an element like a fresh one, touching only what differs: focus, selections, what was
// typed and what is opened stay. What is marked data-own is the page's business alone.

export function morph(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE || old.hasAttribute("data-own")) return;
  attributes(old, fresh);
  children(old, fresh);
}

function attributes(old, fresh) {
  // Only a job's opening is the server's business, too.
  const kept = (name) => name === "open" && !fresh.hasAttribute("data-open");
  for (const { name } of [...old.attributes])
    if (!fresh.hasAttribute(name) && !kept(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes)
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
}

function children(old, fresh) {
  const wanted = new Set([...fresh.children].map((child) => child.id).filter(Boolean));
  for (const child of [...old.children])
    if (child.id && !wanted.has(child.id)) child.remove();
  const known = new Map([...old.children].filter((c) => c.id).map((c) => [c.id, c]));
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const same = child.id ? known.get(child.id) : alike(at, child) ? at : undefined;
    if (!same) {
      old.insertBefore(child, at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else old.insertBefore(same, at);
    morph(same, child);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function alike(old, fresh) {
  return old && !old.id && old.nodeName === fresh.nodeName;
}
