// Label maps: one byte a pixel, the id of the object there, 0 where there is none.

import type { Point } from "./protocol";

export class LabelMap {
  readonly data: Uint8Array;

  constructor(
    readonly width: number,
    readonly height: number,
    data?: Uint8Array,
  ) {
    this.data = data ?? new Uint8Array(width * height);
  }

  static decode(runs: readonly number[], width: number, height: number): LabelMap {
    const map = new LabelMap(width, height);
    let at = 0;
    for (let i = 0; i < runs.length; i += 2) {
      const end = at + runs[i + 1];
      if (runs[i]) map.data.fill(runs[i], at, end);
      at = end;
    }
    return map;
  }

  encode(): number[] {
    const { data } = this;
    const runs: number[] = [];
    let start = 0;
    for (let i = 1; i <= data.length; i++) {
      if (i === data.length || data[i] !== data[start]) {
        runs.push(data[start], i - start);
        start = i;
      }
    }
    return runs;
  }

  copy(): LabelMap {
    return new LabelMap(this.width, this.height, this.data.slice());
  }

  has(id: number): boolean {
    return this.data.includes(id);
  }

  /** Fill the inside of a closed line. */
  fill(points: readonly Point[], id: number, erase: boolean): void {
    const ys = points.map((p) => p[1]);
    const top = Math.max(0, Math.floor(Math.min(...ys)));
    const bottom = Math.min(this.height - 1, Math.ceil(Math.max(...ys)));
    for (let y = top; y <= bottom; y++) {
      const middle = y + 0.5;
      const crossings: number[] = [];
      points.forEach(([x1, y1], i) => {
        const [x2, y2] = points[(i + 1) % points.length];
        if (y1 <= middle !== y2 <= middle) crossings.push(x1 + ((middle - y1) / (y2 - y1)) * (x2 - x1));
      });
      crossings.sort((a, b) => a - b);
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        this.row(y, Math.ceil(crossings[i] - 0.5), Math.floor(crossings[i + 1] - 0.5), id, erase);
      }
    }
  }

  /** Put an object where another map has any; elsewhere the object goes. */
  replace(id: number, mask: LabelMap): void {
    const { data } = this;
    for (let i = 0; i < data.length; i++) {
      if (mask.data[i]) data[i] = id;
      else if (data[i] === id) data[i] = 0;
    }
  }

  /** Paint a disc, or take `id` out of it. */
  disc(cx: number, cy: number, radius: number, id: number, erase: boolean): void {
    const top = Math.max(0, Math.ceil(cy - radius - 0.5));
    const bottom = Math.min(this.height - 1, Math.floor(cy + radius - 0.5));
    for (let y = top; y <= bottom; y++) {
      const half = Math.sqrt(Math.max(0, radius * radius - (y + 0.5 - cy) ** 2));
      this.row(y, Math.ceil(cx - half - 0.5), Math.floor(cx + half - 0.5), id, erase);
    }
  }

  private row(y: number, left: number, right: number, id: number, erase: boolean): void {
    const start = y * this.width + Math.max(0, left);
    const end = y * this.width + Math.min(this.width - 1, right);
    if (!erase) this.data.fill(id, start, Math.max(start, end + 1));
    else for (let i = start; i <= end; i++) if (this.data[i] === id) this.data[i] = 0;
  }
}
