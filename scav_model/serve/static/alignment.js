// Why a hit was found: its alignment with the query, beside players of both that move together.

import { address, ask, make } from "/static/api.js";
import { matchingTime, Picture, soundImage } from "/static/draw.js";

const TILES = 24;

// Returns the figure; `attach`, to be called once it is in the page; and `detach`, which ends what it listens to.
export async function showAlignment(query, hit, side, metric, players) {
  const alignment = await ask("alignment", { ...query.asked, hit: hit.clip.id, side, metric });
  const strips = Object.fromEntries(await Promise.all([
    ["query", query.asked, alignment.query],
    ["clip", { clip: hit.clip.id }, alignment.clip],
  ].map(async ([name, asked, axis]) => [name, await loadStrip(asked, axis.side)])));
  const base = make("canvas", { role: "img", "aria-label": described(alignment) });
  const overlay = make("canvas", { "aria-hidden": "true" });
  const slider = make("input", { type: "range", min: 0, max: alignment.clip.end, step: 0.05, value: 0 });
  const times = make("output", {});
  const tied = alignment.unit === "s";
  const clip = make("div", {}, make("h4", {}, "Clip"));
  const parts = [
    make("div", { class: "players" },
      make("div", {}, make("h4", {}, "Query"), players.query ? players.query.element : make("p", { class: "quiet" }, query.noPlayer)),
      clip),
    make("div", { class: "layers" }, base, overlay),
    tied ? make("label", {}, "Time in the clip ", slider, " ", times) : make("p", { class: "note" },
      "The index does not know the rates of its steps, so the axes count steps and the players are not tied to them."),
    make("p", {}, summed(alignment)),
    make("p", { class: "quiet" }, legend(alignment)),
  ];
  const figure = make("figure", { class: "alignment" }, ...parts);
  const ended = new AbortController();
  const attach = () => {
    // The card's own player, which stays there until the figure takes its place.
    clip.append(players.clip ? players.clip.element : make("p", { class: "quiet" }, "No media file is known."));
    const picture = new Picture(base, overlay, alignment, strips), draw = () => picture.draw();
    const observer = new ResizeObserver(draw);
    observer.observe(figure);
    ended.signal.addEventListener("abort", () => observer.disconnect());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw, { signal: ended.signal });
    if (tied) tie(picture, alignment, players, slider, times, ended.signal);
  };
  return { figure, attach, detach: () => ended.abort() };
}

async function loadStrip(asked, side) {
  try {
    if (side === "audio") {
      const found = await ask("sound", asked);
      return { sound: soundImage(found.matrix), seconds: found.seconds };
    }
    const film = new Image();
    film.src = address("film", { ...asked, tiles: TILES });
    await film.decode();
    return { film, seconds: null };
  } catch {
    return null; // No media file: the heat map is shown alone.
  }
}

// Moves one cursor with whichever player plays, and both players to where someone points.
function tie(picture, alignment, players, slider, times, signal) {
  const show = (cursor) => {
    picture.show(cursor);
    slider.value = cursor.clip;
    times.textContent = `${cursor.clip.toFixed(2)} s; query ${cursor.query.toFixed(2)} s`;
  };
  const jump = (cursor) => {
    if (players.query) players.query.seek(cursor.query);
    if (players.clip) players.clip.seek(cursor.clip);
    show(cursor);
  };
  const places = {
    query: (time) => ({ query: time, clip: matchingTime(alignment.query, time) }),
    clip: (time) => ({ query: matchingTime(alignment.clip, time), clip: time }),
  };
  for (const [name, place] of Object.entries(places)) {
    const player = players[name];
    if (!player) continue;
    const follow = () => {
      if (signal.aborted) return;
      show(place(Math.min(Math.max(player.time, 0), alignment[name].end)));
      if (!player.media.paused && !player.media.ended) requestAnimationFrame(follow);
    };
    player.media.addEventListener("play", follow, { signal });
  }
  picture.overlay.addEventListener("click", (event) => jump(picture.at(event)));
  slider.addEventListener("input", () => jump(places.clip(Number(slider.value))));
  show(places.clip(0));
}

const number = (value) => (value === null ? "not finite" : Number(value.toPrecision(3)).toString());

function described(alignment) {
  const { query, clip, matches, unit } = alignment;
  const drawn = !matches ? "costs alone" : matches.path ? "costs and the path" : "costs and the plan";
  return `Heat map of ${drawn}: query, ${query.end.toFixed(1)} ${unit}, against clip, ${clip.end.toFixed(1)} ${unit}.`;
}

// What adds up to the distance, in words.
function summed({ distance, matches, unit }) {
  if (!matches) return "This distance names no matches: the heat map has the costs alone.";
  const total = matches.contributions.reduce((sum, value) => sum + value, 0);
  const words = `The distance is ${number(distance)}: the ${unit === "s" ? "seconds" : "steps"} of the clip add up to ${number(total)}`;
  const rest = Math.abs(matches.rest) > 1e-3 * Math.abs(distance || 1);
  return rest ? `${words}, and ${number(matches.rest)} is of no match: smoothing, or matches too small to draw.` : `${words}.`;
}

function legend({ matches, unit }) {
  const drawn = !matches ? "" : matches.path ? " The line is the path of matches." : " The stronger the color, the more a pair of moments counts.";
  return `Dark: the two moments are alike.${drawn} Bars: share of each ${unit === "s" ? "second" : "step"} of the clip in the sum. Click anywhere, and both players jump there.`;
}
