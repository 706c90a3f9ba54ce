// A frame's objects as pixels over it: in colour, as outline, matte, cut-out, or what changed since the frame before.

import type { LabelMap } from "./labels";
import type { Thing } from "./protocol";
import type { View } from "./store";

const WHITE = 0xffffffff;
const BLACK = 0xff000000;
const GAINED = 0xd080de4a; // ABGR, as little-endian words have it
const LOST = 0xd07171f8;

/** Draws label maps into a canvas of the video's size. */
export class Painter {
  readonly canvas: HTMLCanvasElement;
  private readonly context: CanvasRenderingContext2D;
  private readonly image: ImageData;
  private readonly words: Uint32Array;

  constructor(
    private readonly width: number,
    private readonly height: number,
  ) {
    this.canvas = document.createElement("canvas");
    this.canvas.width = width;
    this.canvas.height = height;
    this.context = this.canvas.getContext("2d")!;
    this.image = this.context.createImageData(width, height);
    this.words = new Uint32Array(this.image.data.buffer);
  }

  paint(map: LabelMap, things: readonly Thing[], view: View, opacity: number, before: LabelMap | null): void {
    const visible = new Set(things.filter((thing) => thing.visible).map((thing) => thing.id));
    if (view === "difference") this.difference(map, before ?? map, visible);
    else if (view === "matte" || view === "cutout") this.matte(map, visible, view === "matte" ? WHITE : 0);
    else this.colours(map, things, view === "outline" ? 0 : opacity);
    this.context.putImageData(this.image, 0, 0);
  }

  /** Draw alpha, a grey picture, in place of a label map. */
  soften(alpha: ImageBitmap, view: "matte" | "cutout"): void {
    this.context.drawImage(alpha, 0, 0);
    if (view === "matte") return;
    const { data } = this.context.getImageData(0, 0, this.width, this.height);
    for (let i = 0; i < this.words.length; i++) this.words[i] = ((255 - data[4 * i]) << 24) >>> 0; // black, where the object is not
    this.context.putImageData(this.image, 0, 0);
  }

  private colours(map: LabelMap, things: readonly Thing[], opacity: number): void {
    const inside = new Uint32Array(256);
    const edge = new Uint32Array(256);
    for (const thing of things.filter((t) => t.visible)) {
      const rgb = Number.parseInt(thing.colour.slice(1), 16);
      const bgr = ((rgb & 255) << 16) | (rgb & 0xff00) | (rgb >> 16);
      inside[thing.id] = ((Math.round(opacity * 255) << 24) | bgr) >>> 0;
      edge[thing.id] = (0xff000000 | bgr) >>> 0;
    }
    const { data } = map;
    const { width, height, words } = this;
    const reach = Math.max(1, Math.round(Math.min(width, height) / 480)); // of the outline, in pixels
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        const id = data[i];
        if (!id) words[i] = 0;
        else {
          const outlined =
            (x >= reach && data[i - reach] !== id) ||
            (x + reach < width && data[i + reach] !== id) ||
            (y >= reach && data[i - reach * width] !== id) ||
            (y + reach < height && data[i + reach * width] !== id);
          words[i] = outlined ? edge[id] : inside[id];
        }
      }
    }
  }

  private matte(map: LabelMap, visible: Set<number>, inside: number): void {
    const table = new Uint32Array(256).fill(BLACK);
    for (const id of visible) table[id] = inside;
    for (let i = 0; i < map.data.length; i++) this.words[i] = table[map.data[i]];
  }

  private difference(map: LabelMap, before: LabelMap, visible: Set<number>): void {
    for (let i = 0; i < map.data.length; i++) {
      const now = map.data[i];
      const then = before.data[i];
      this.words[i] = now === then ? 0 : visible.has(now) ? GAINED : visible.has(then) ? LOST : 0;
    }
  }
}
