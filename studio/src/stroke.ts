// A stroke of the brush or the eraser over a label map, whose pixels belong to an object or do not. A soft edge is
// therefore one that takes hold slowly: the nearer to the rim, the more often the brush must come by.

import type { LabelMap } from "./labels";
import type { Point } from "./protocol";

const TAKEN = 0.5; // of full strength, as it adds up over a stroke

export interface Brush {
  radius: number;
  soft: number; // share of the radius, from the rim inwards, in which the brush fades
  object: number;
  erase: boolean;
}

export class Stroke {
  private readonly strength: Float32Array | null;
  private last: Point | null = null;

  constructor(
    private readonly map: LabelMap,
    private readonly brush: Brush,
  ) {
    this.strength = brush.soft > 0 ? new Float32Array(map.width * map.height) : null;
  }

  to(place: Point): void {
    const from = this.last ?? place;
    const apart = Math.hypot(place[0] - from[0], place[1] - from[1]);
    const steps = Math.max(1, Math.ceil(apart / Math.max(1, this.brush.radius / 3)));
    for (let i = this.last ? 1 : 0; i <= steps; i++) {
      const t = i / steps;
      const [x, y] = [from[0] + (place[0] - from[0]) * t, from[1] + (place[1] - from[1]) * t];
      if (this.strength) this.soften(x, y, this.strength);
      else this.map.disc(x, y, this.brush.radius, this.brush.object, this.brush.erase);
      if (!this.last) break;
    }
    this.last = place;
  }

  private soften(cx: number, cy: number, strength: Float32Array): void {
    const { radius, soft, object, erase } = this.brush;
    const { width, height, data } = this.map;
    const hard = radius * (1 - soft);
    const [left, right] = [Math.max(0, Math.ceil(cx - radius - 0.5)), Math.min(width - 1, Math.floor(cx + radius - 0.5))];
    const [top, bottom] = [Math.max(0, Math.ceil(cy - radius - 0.5)), Math.min(height - 1, Math.floor(cy + radius - 0.5))];
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++) {
        const away = Math.hypot(x + 0.5 - cx, y + 0.5 - cy);
        if (away > radius) continue;
        const t = away <= hard ? 1 : (radius - away) / (radius - hard);
        const i = y * width + x;
        strength[i] += (1 - strength[i]) * (away <= hard ? 1 : 0.5 * t * t * (3 - 2 * t));
        if (strength[i] < TAKEN) continue;
        if (!erase) data[i] = object;
        else if (data[i] === object) data[i] = 0;
      }
    }
  }
}
