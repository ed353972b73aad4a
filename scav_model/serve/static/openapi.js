// The operations of the OpenAPI document as a page.

import { make } from "/static/api.js";

const kinds = (schema) =>
  !schema ? "" : schema.enum ? schema.enum.join(" | ") : schema.anyOf ? schema.anyOf.map(kinds).join(" | ") :
  schema.type === "array" ? `list of ${kinds(schema.items)}` : schema.$ref ? schema.$ref.split("/").pop() : schema.type || "";

function rows(items, ...heads) {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  return make("table", {}, make("thead", {}, head),
    make("tbody", {}, ...items.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell))))));
}

function operation(path, method, described) {
  const parts = [make("h2", {}, make("code", {}, `${method.toUpperCase()} ${path}`)), make("p", {}, described.description || "")];
  if (described.parameters) {
    parts.push(rows(described.parameters.map((one) => [
      make("code", {}, one.name), kinds(one.schema) + (one.required ? ", required" : ""),
      one.schema.default === undefined || one.schema.default === null ? "" : String(one.schema.default), one.description || "",
    ]), "parameter", "type", "default", "meaning"));
  }
  if (described.requestBody) parts.push(make("p", {}, `Body: ${Object.keys(described.requestBody.content).join(", ")}`));
  for (const [status, answer] of Object.entries(described.responses)) {
    if (status === "422") continue;
    const content = Object.entries(answer.content || {}).map(([type, one]) => kinds(one.schema) || type).join(", ");
    parts.push(make("p", {}, `${status}: ${content || answer.description}`));
  }
  return make("section", { class: "panel" }, ...parts);
}

function schema(name, described) {
  const fields = Object.entries(described.properties || {}).map(([field, one]) => [make("code", {}, field), kinds(one)]);
  return make("section", { class: "panel" }, make("h2", {}, name), make("p", {}, described.description || ""), rows(fields, "field", "type"));
}

const found = await (await fetch("/api/openapi.json")).json();
document.getElementById("about").textContent = `${found.info.description} Version ${found.info.version}.`;
const main = document.getElementById("operations");
for (const [path, methods] of Object.entries(found.paths)) {
  for (const [method, described] of Object.entries(methods)) main.append(operation(path, method, described));
}
for (const [name, described] of Object.entries(found.components.schemas)) main.append(schema(name, described));
