// Calls of the JSON API, and small helpers to build elements.

export async function ask(path, parameters = {}, options = {}) {
  const answer = await fetch(address(path, parameters), options);
  const text = await answer.text();
  let found = null;
  try {
    found = JSON.parse(text);
  } catch {
    // Not JSON: the status says what is wrong.
  }
  if (!answer.ok) {
    const detail = found && typeof found.detail === "string" ? found.detail : `the server answered ${answer.status}`;
    throw new Error(detail);
  }
  return found;
}

export function address(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined);
  const text = new URLSearchParams(given).toString();
  return text ? `/api/${path}?${text}` : `/api/${path}`;
}

// Returns an element: its attributes, then its children, elements or texts.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    } else if (name === "class") {
      element.className = value;
    } else if (value === true) {
      element.setAttribute(name, "");
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}
