// A player of a clip, which may be a part of its file.

import { address, make } from "/static/api.js";

export class Player {
  // `source`: { url, kind, start, seconds, poster, name }
  constructor(source) {
    this.start = source.start || 0;
    const end = source.seconds ? this.start + source.seconds : null;
    const span = this.start ? `#t=${this.start}${end ? `,${end}` : ""}` : "";
    this.media = make(source.kind === "audio" ? "audio" : "video", {
      controls: true, preload: "none", src: source.url + span, poster: source.poster, "aria-label": source.name,
    });
    this.element = make("div", {}, this.media);
    this.media.addEventListener("error", () => this.explain(source), { once: true });
  }

  // The time in the clip, in seconds.
  get time() {
    return this.media.currentTime - this.start;
  }

  seek(time) {
    const move = () => { this.media.currentTime = this.start + time; };
    if (this.media.readyState > 0) {
      move();
    } else {
      this.media.addEventListener("loadedmetadata", move, { once: true });
      this.media.preload = "metadata";
      this.media.load();
    }
  }

  async explain(source) {
    let reason = "This browser cannot play the file.";
    if (source.url.startsWith("/api/")) {
      const answer = await fetch(source.url, { headers: { Range: "bytes=0-0" } });
      if (!answer.ok) reason = (await answer.json().catch(() => ({}))).detail || reason;
    }
    this.element.append(make("p", { class: "note" }, `No playback: ${reason}`));
  }
}

export function clipPlayer(clip, name) {
  if (!clip.kind) return null;
  return new Player({
    url: address("media", { clip: clip.id }), kind: clip.kind, start: clip.start, seconds: clip.seconds,
    poster: clip.kind === "video" ? address("poster", { clip: clip.id }) : null, name,
  });
}
