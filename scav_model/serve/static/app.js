// The page: a query, the distance, and the hits.

import { showAlignment } from "/static/alignment.js";
import { ask, make } from "/static/api.js";
import { clipPlayer, Player } from "/static/player.js";
import { canRecord, Recorder } from "/static/recorder.js";

const SEARCHED = 50, SHOWN = 10, LISTED = 8;
const SIDES = { video: "its pictures, for sounds that fit", audio: "its sound, for videos that fit" };
const at = (id) => document.getElementById(id);
const index = await ask("index");
const state = { query: null, side: "video", metric: index.metric, answer: null, before: null, cards: [], shown: SHOWN };
const recorder = new Recorder();
let searches = 0;

function say(text) { at("status").textContent = text; }

function alarm(error) {
  at("alert").hidden = !error;
  at("alert").textContent = error ? error.message || String(error) : "";
}

// Does something that may fail, and says so where it does.
async function attempt(work) {
  alarm(null);
  try {
    return await work();
  } catch (error) {
    say("");
    alarm(error);
    return null;
  }
}

// -- The query

async function chooseClip(clip) {
  setQuery({
    asked: { clip: clip.id }, name: clip.id, sides: index.searched.length > 1 ? ["video", "audio"] : index.searched,
    player: () => clipPlayer(clip, `Query ${clip.id}`), noPlayer: "No media file is known.",
  });
}

async function upload(file, name) {
  const { problem, megabytes, seconds } = index.uploads;
  await attempt(async () => {
    if (problem) throw new Error(`No file can be uploaded: ${problem}`);
    if (file.size > megabytes * 2 ** 20) throw new Error(`${name} has more than ${megabytes} MiB; cut it.`);
    say(`Reading ${name} …`);
    const found = await ask("uploads", { name: name.slice(0, 200) }, {
      method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" },
    });
    const url = URL.createObjectURL(file); // For as long as this is the query.
    const kind = found.sides.includes("video") ? "video" : "audio";
    setQuery({
      asked: { upload: found.upload }, name, sides: found.sides, missing: found.missing,
      player: () => new Player({ url, kind, seconds, name: `Query ${name}` }), noPlayer: `At most ${seconds} s can be played.`,
      release: () => URL.revokeObjectURL(url),
    });
  });
}

function setQuery(query) {
  const sides = query.sides.filter((side) => index.searched.includes(side === "video" ? "audio" : "video"));
  if (!sides.length) {
    alarm(new Error(`${query.name} cannot search here: the index holds ${index.searched.join(" and ")} alone.`));
    return;
  }
  state.query?.release?.();
  state.query = query;
  state.before = null;
  if (!sides.includes(state.side)) [state.side] = sides;
  at("query").hidden = false;
  at("query-name").textContent = `Query: ${query.name}`;
  const player = query.player();
  at("query-player").replaceChildren(player ? player.element : make("p", { class: "quiet" }, query.noPlayer));
  choices("sides", sides.map((side) => [side, SIDES[side]]), state.side, (side) => {
    state.side = side;
    state.before = null;
    search();
  });
  search();
}

function choices(id, options, chosen, change) {
  const [legend] = at(id).children;
  at(id).replaceChildren(legend, ...options.map(([value, text]) => make("label", {},
    make("input", { type: "radio", name: id, value, checked: value === chosen, on: { change: () => change(value) } }), text)));
}

async function listClips() {
  const found = await ask("clips", { contains: at("pick").value.trim(), limit: LISTED });
  at("clips").replaceChildren(...found.clips.map((clip) => make("li", {}, make("button", {
    type: "button", on: { click: () => chooseClip(clip) },
  }, clip.label ? `${clip.id} (${clip.label})` : clip.id))));
  const rest = found.total - found.clips.length;
  at("clips-more").textContent = rest > 0 ? `and ${rest} more; type a part of the id or label` : found.total ? "" : "No clip has that in its id or label.";
}

// -- The search

async function search() {
  searches += 1;
  const turn = searches;
  const { query, side, metric } = state;
  say("Searching …");
  await attempt(async () => {
    const answer = await ask("search", { ...query.asked, side, metric, k: SEARCHED });
    if (turn !== searches) return; // A later search has been asked for.
    state.answer = answer;
    showHits();
    state.before = new Map(answer.hits.map((hit) => [hit.clip.id, hit.rank]));
  });
}

function showHits() {
  const { answer, before } = state;
  const kind = answer.searched === "video" ? "Videos" : "Sounds";
  at("results").hidden = false;
  at("hits-title").textContent = `${kind} nearest to ${state.query.name}`;
  const made = answer.hits.map((hit) => card(hit, before));
  state.cards.forEach((one) => one.close());
  state.cards = made;
  at("hits").replaceChildren(...made.map((one) => one.item));
  revealHits();
  const own = answer.hits.find((hit) => hit.is_query);
  const ranked = state.query.asked.clip === undefined ? "" : own ? ` The query's own clip has rank ${own.rank}.` : ` The query's own clip is not among the nearest ${answer.hits.length}.`;
  const label = index.metrics.find((one) => one.name === answer.metric).label;
  say([`${answer.hits.length} of ${index.clips} clips by ${label}.${ranked}`, ...answer.notes.filter((note) => !note.startsWith("k is "))].join(" "));
}

function revealHits() {
  [...at("hits").children].forEach((item, place) => { item.hidden = place >= state.shown; });
  at("more").hidden = at("hits").children.length <= state.shown;
}

function moved(hit, before) {
  if (!before) return null;
  const rank = before.get(hit.clip.id);
  if (rank === hit.rank) return make("span", { class: "quiet" }, `rank ${rank}, as before`);
  const up = rank === undefined || rank > hit.rank;
  const was = rank === undefined ? `beyond ${before.size}` : rank;
  return make("span", { class: up ? "up" : "down" }, `rank ${was} → ${hit.rank} ${up ? "▲" : "▼"}`);
}

// Returns the element of a hit, and `close`, which ends what its alignment listens to.
function card(hit, before) {
  const { clip } = hit;
  const player = clipPlayer(clip, `Clip ${clip.id}`);
  const place = make("div", {}, player ? player.element : make("p", { class: "quiet" }, "No player: the index names no media file of this clip."));
  const about = make("p", {}, make("span", { class: "quiet" }, [
    `distance ${hit.distance === null ? "not finite" : hit.distance.toFixed(4)}`, clip.label, clip.seconds && `${clip.seconds.toFixed(1)} s`,
  ].filter(Boolean).join(" · ")));
  const change = moved(hit, before);
  if (change) about.append(" ", change);
  if (hit.is_query) about.append(" ", make("span", { class: "own" }, "✓ the query's own clip"));
  const button = make("button", { type: "button", "aria-expanded": "false", "aria-describedby": `hit-${hit.rank}`, on: { click: () => toggle() } }, "Show why");
  const item = make("li", { class: hit.is_query ? "is-query" : "" }, make("h3", { id: `hit-${hit.rank}` }, `${hit.rank}. ${clip.id}`), about, place, button);

  let turns = 0, shown = null;

  function close() {
    turns += 1;
    shown?.detach();
    shown?.figure.remove();
    shown = null;
  }

  async function toggle() {
    const open = item.classList.toggle("open");
    button.setAttribute("aria-expanded", String(open));
    button.textContent = open ? "Hide why" : "Show why";
    close();
    if (player) place.replaceChildren(player.element);
    if (!open) return;
    const turn = turns;
    await attempt(async () => {
      const { query, side, metric } = state;
      const made = await showAlignment(query, hit, side, metric, { query: query.player(), clip: player });
      if (turn !== turns) return; // It was closed meanwhile, and perhaps opened again.
      shown = made;
      item.append(made.figure);
      made.attach();
    });
  }
  return { item, close };
}

// -- Everything that a person can use

function start() {
  document.title = `SCAV search: ${index.name}`;
  at("index-name").textContent = index.name;
  at("about").textContent += ` ${index.clips} clips.`;
  const { problem, megabytes, seconds } = index.uploads;
  at("limits").textContent = problem ? `No file can be uploaded: ${problem}` : `At most ${megabytes} MiB and ${seconds} seconds. The file is deleted once it has been read.`;
  at("file").disabled = at("record").disabled = Boolean(problem);
  if (!canRecord()) {
    at("record").disabled = true;
    at("record").textContent = "No microphone: browsers want https, or this machine";
  }
  choices("metrics", index.metrics.map((one) => [one.name, one.label]), state.metric, (metric) => {
    state.metric = metric;
    search();
  });
  at("file").addEventListener("change", () => {
    const [file] = at("file").files;
    if (file) upload(file, file.name);
    at("file").value = "";
  });
  at("record").addEventListener("click", () => (recorder.active ? recorder.stop() : attempt(async () => {
    const file = await recorder.start(seconds, (count) => { at("record").textContent = `Stop and search (${count} s)`; });
    at("record").textContent = "Record with the microphone";
    await upload(file, "recording");
  })));
  const drop = at("drop");
  for (const event of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(event, (dragged) => {
      dragged.preventDefault();
      drop.classList.toggle("over", event === "dragover");
      const [file] = event === "drop" ? dragged.dataTransfer.files : [];
      if (file) upload(file, file.name);
    });
  }
  let typing = 0;
  at("pick").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => attempt(listClips), 150);
  });
  at("more").addEventListener("click", () => {
    state.shown = SEARCHED;
    revealHits();
  });
  attempt(listClips);
}

start();
