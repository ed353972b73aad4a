// Draws an alignment: costs as a heat map, the path or plan over them, film strips and spectrograms along both axes,
// and what each second contributes. Both axes have the same scale: a second is as wide as it is high.

import { bytes } from "/static/api.js";

const LEFT = 44, STRIP = 52, GAP = 4, AXIS = 34, BARS = 70, TOP = 8, RIGHT = 14, MAX_HEIGHT = 420;
// Dark to light, in equal steps for the eye and for every color vision.
const COLORS = [[20, 22, 44], [47, 62, 109], [72, 107, 142], [118, 156, 171], [178, 202, 205], [238, 243, 242]];

export class Picture {
  constructor(base, overlay, alignment, strips) {
    Object.assign(this, { base, overlay, alignment, strips });
    this.heat = matrixImage(alignment.costs, (level) => [...color(level), 255]);
    const plan = alignment.matches && alignment.matches.plan;
    const match = rgb(style("--match"));
    this.plan = plan && matrixImage(plan, (level) => [...match, Math.round(235 * Math.sqrt(level))]);
    this.cursor = null;
    this.draw();
  }

  // Fits the width that there is, and draws everything.
  draw() {
    const { query, clip } = this.alignment;
    const width = Math.max(240, this.base.parentElement.clientWidth);
    this.x0 = LEFT + STRIP + GAP;
    this.y0 = TOP;
    this.scale = Math.min((width - this.x0 - RIGHT) / clip.end, MAX_HEIGHT / query.end);
    this.w = clip.end * this.scale;
    this.h = query.end * this.scale;
    this.stripTop = this.y0 + this.h + GAP;
    this.barsTop = this.stripTop + STRIP + AXIS;
    const height = this.barsTop + (this.alignment.matches ? BARS + 8 : 0);
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.base, this.overlay]) {
      canvas.width = width * ratio;
      canvas.height = height * ratio;
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
      canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    const pen = this.base.getContext("2d");
    pen.font = "12px system-ui, sans-serif";
    pen.imageSmoothingEnabled = false;
    pen.drawImage(this.heat, this.x0, this.y0, this.w, this.h);
    if (this.plan) pen.drawImage(this.plan, this.x0, this.y0, this.w, this.h);
    this.path(pen);
    this.strip(pen, this.strips.clip, this.x0, this.stripTop, this.w, false);
    this.strip(pen, this.strips.query, LEFT, this.y0, this.h, true);
    this.axes(pen);
    this.bars(pen);
    this.show(this.cursor);
  }

  path(pen) {
    const path = this.alignment.matches && this.alignment.matches.path;
    if (!path) return;
    for (const [width, stroke] of [[5, "rgba(0, 0, 0, 0.55)"], [2.5, style("--match")]]) {
      pen.beginPath();
      for (const [query, clip] of path) pen.lineTo(this.x(clip), this.y(query));
      Object.assign(pen, { lineWidth: width, strokeStyle: stroke, lineJoin: "round" });
      pen.stroke();
    }
  }

  // Draws a film strip, tile by tile, or a spectrogram, along an axis of `length` px.
  strip(pen, strip, left, top, length, down) {
    pen.save();
    pen.translate(left, top);
    pen.beginPath();
    pen.rect(0, 0, down ? STRIP : length, down ? length : STRIP);
    pen.fillStyle = style("--line");
    pen.fill();
    pen.clip();
    if (strip && strip.sound) {
      const reach = (strip.seconds || 1) * this.scale;
      if (down) pen.transform(0, 1, 1, 0, 0, 0);
      pen.drawImage(strip.sound, 0, 0, this.alignment.unit === "s" ? reach : length, STRIP);
    } else if (strip && strip.film) {
      const size = strip.film.height, tiles = Math.round(strip.film.width / size);
      const step = (this.alignment.unit === "s" && strip.seconds ? strip.seconds * this.scale : length) / tiles;
      pen.imageSmoothingEnabled = true;
      for (let tile = 0; tile < tiles; tile += 1) {
        const place = tile * step;
        // Each tile keeps its shape; where they crowd, a tile is cut in its middle.
        const shown = Math.min(step, STRIP), cut = (size * shown) / STRIP;
        if (down) pen.drawImage(strip.film, tile * size, (size - cut) / 2, size, cut, 0, place, STRIP, shown);
        else pen.drawImage(strip.film, tile * size + (size - cut) / 2, 0, cut, size, place, 0, shown, STRIP);
      }
    }
    pen.restore();
  }

  axes(pen) {
    const { query, clip, unit } = this.alignment;
    pen.fillStyle = pen.strokeStyle = style("--quiet");
    pen.lineWidth = 1;
    const every = tickStep(this.scale);
    pen.textAlign = "center";
    const under = this.stripTop + STRIP;
    for (const time of ticks(clip.end, every)) {
      line(pen, this.x(time), under, this.x(time), under + 4);
      pen.fillText(`${time}`, this.x(time), under + 15);
    }
    pen.textAlign = "left";
    pen.fillText(`clip, ${unit}`, this.x0, under + 29);
    pen.textAlign = "right";
    for (const time of ticks(query.end, every)) {
      line(pen, LEFT - 4, this.y(time), LEFT, this.y(time));
      pen.fillText(`${time}`, LEFT - 7, Math.max(this.y(time) + 4, this.y0 + 10));
    }
    pen.save();
    pen.translate(11, this.y0 + this.h / 2);
    pen.rotate(-Math.PI / 2);
    pen.textAlign = "center";
    pen.fillText(`query, ${unit}`, 0, 0);
    pen.restore();
  }

  bars(pen) {
    const { matches } = this.alignment;
    if (!matches) return;
    const values = matches.contributions;
    const highest = Math.max(...values.map(Math.abs)) || 1;
    const total = values.reduce((sum, value) => sum + value, 0);
    const floor = this.barsTop + BARS;
    pen.textAlign = "center";
    values.forEach((value, second) => {
      const left = this.x(second), right = this.x(Math.min(second + 1, this.alignment.clip.end));
      const height = ((BARS - 16) * Math.abs(value)) / highest;
      pen.fillStyle = style("--match");
      pen.fillRect(left + 1, floor - height, Math.max(1, right - left - 2), height);
      pen.fillStyle = style("--text");
      if (right - left > 30 && total) pen.fillText(`${Math.round((100 * value) / total)} %`, (left + right) / 2, floor - height - 4);
    });
    pen.strokeStyle = style("--quiet");
    line(pen, this.x0, floor, this.x0 + this.w, floor);
  }

  x(time) { return this.x0 + time * this.scale; }

  y(time) { return this.y0 + time * this.scale; }

  // Times of the place of a pointer, as near as both axes allow.
  at(event) {
    const box = this.overlay.getBoundingClientRect();
    const within = (value, end) => Math.min(Math.max(value / this.scale, 0), end);
    return {
      query: within(event.clientY - box.top - this.y0, this.alignment.query.end),
      clip: within(event.clientX - box.left - this.x0, this.alignment.clip.end),
    };
  }

  // Shows where query and clip are, on both axes and all strips.
  show(cursor) {
    this.cursor = cursor;
    const pen = this.overlay.getContext("2d");
    pen.clearRect(0, 0, this.overlay.width, this.overlay.height);
    if (!cursor) return;
    const bottom = this.alignment.matches ? this.barsTop + BARS : this.stripTop + STRIP;
    for (const [width, stroke] of [[4, "rgba(0, 0, 0, 0.6)"], [2, "#fff"]]) {
      Object.assign(pen, { lineWidth: width, strokeStyle: stroke });
      line(pen, this.x(cursor.clip), this.y0, this.x(cursor.clip), bottom);
      line(pen, LEFT, this.y(cursor.query), this.x0 + this.w, this.y(cursor.query));
    }
  }
}

export function matrixImage(matrix, colorOf) {
  const canvas = document.createElement("canvas");
  canvas.width = matrix.columns;
  canvas.height = matrix.rows;
  const pen = canvas.getContext("2d"), image = pen.createImageData(matrix.columns, matrix.rows);
  bytes(matrix.values).forEach((level, place) => image.data.set(colorOf(level / 255), 4 * place));
  pen.putImageData(image, 0, 0);
  return canvas;
}

// A spectrogram as an image, the highest band on top.
export function soundImage(matrix) {
  const upright = matrixImage(matrix, (level) => [...color(level), 255]);
  const canvas = document.createElement("canvas");
  canvas.width = upright.width;
  canvas.height = upright.height;
  const pen = canvas.getContext("2d");
  pen.setTransform(1, 0, 0, -1, 0, upright.height);
  pen.drawImage(upright, 0, 0);
  return canvas;
}

// The other side's time at a time of an axis.
export function matchingTime(axis, time) {
  const place = Math.min(Math.max((time / axis.end) * axis.steps - 0.5, 0), axis.steps - 1);
  const before = Math.floor(place), after = Math.min(before + 1, axis.steps - 1);
  return axis.matching[before] + (axis.matching[after] - axis.matching[before]) * (place - before);
}

export function tickStep(scale) {
  return [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800].find((step) => step * scale >= 34) || 3600;
}

function ticks(end, every) {
  return Array.from({ length: Math.floor(end / every + 1e-6) + 1 }, (_, count) => Number((count * every).toFixed(1)));
}

function color(level) {
  const place = level * (COLORS.length - 1), below = Math.min(Math.floor(place), COLORS.length - 2);
  return COLORS[below].map((value, part) => Math.round(value + (COLORS[below + 1][part] - value) * (place - below)));
}

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const rgb = (hex) => [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));

function line(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}
