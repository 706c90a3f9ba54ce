// The timeline: thumbnails, what is known of each frame, corrected frames, and the play head.

import { onPixelRatio } from "./dom";
import type { Pictures } from "./pictures";
import type { Store } from "./store";

const PAD = 12; // CSS pixels left and right
const THUMBS = 46; // height
const STRIPS = 12; // height of the strips that show where objects are
const BAR = 26; // height of the confidence strip
const KEYS = 16; // height of the row with marks of corrected frames
const LOWEST = 0.5; // confidence at the foot of the strip: below, an object is as good as lost

export class Timeline {
  private due = false;

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly store: Store,
    private readonly pictures: Pictures,
  ) {
    new ResizeObserver(() => this.draw()).observe(canvas);
    onPixelRatio(() => this.draw());
    store.on(["frames", "state", "frame", "view", "range"], () => this.draw());
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.scrub(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) this.scrub(event);
    });
    this.draw();
  }

  draw(): void {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      this.render();
    });
  }

  private scrub(event: PointerEvent): void {
    const box = this.canvas.getBoundingClientRect();
    const along = (event.clientX - box.left - PAD) / Math.max(1, box.width - 2 * PAD);
    this.store.set("playing", false, "play");
    this.store.goTo(Math.floor(along * this.store.frames.length));
  }

  private render(): void {
    const { store, canvas } = this;
    const scale = devicePixelRatio;
    const width = canvas.clientWidth;
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale));
    const context = canvas.getContext("2d")!;
    context.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const ink = (name: string): string => style.getPropertyValue(`--${name}`).trim();
    const count = store.frames.length;
    const each = (width - 2 * PAD) / count;
    const x = (index: number): number => PAD + index * each;

    this.thumbnails(context, width);
    this.strips(context, x, each);
    const top = THUMBS + STRIPS + 6;
    context.fillStyle = ink("well");
    context.fillRect(PAD, top, width - 2 * PAD, BAR);
    const gap = each > 4 ? 1 : 0;
    store.frames.forEach(({ status, confidence, doubt }, index) => {
      if (status === "none") return;
      const height = Math.max(4, (((confidence ?? LOWEST) - LOWEST) / (1 - LOWEST)) * BAR);
      context.fillStyle = ink(status === "stale" ? "stale" : doubt ? "doubt" : "sure");
      context.fillRect(x(index), top + BAR - height, Math.max(1, each - gap), height);
    });
    context.fillStyle = ink("key");
    for (const key of store.state?.keys ?? []) {
      const middle = x(key) + each / 2;
      const y = top + BAR + KEYS / 2 + 1;
      context.beginPath();
      context.moveTo(middle, y - 6);
      context.lineTo(middle + 6, y);
      context.lineTo(middle, y + 6);
      context.lineTo(middle - 6, y);
      context.fill();
    }
    if (store.range) {
      const [left, right] = [x(store.range.first), x(store.range.last + 1)];
      context.fillStyle = ink("panel");
      context.globalAlpha = 0.7;
      context.fillRect(PAD, 0, left - PAD, top + BAR);
      context.fillRect(right, 0, width - PAD - right, top + BAR);
      context.globalAlpha = 1;
      context.fillStyle = ink("accent");
      for (const [edge, inward] of [[left, 1], [right - 2, -1]]) {
        context.fillRect(edge, 0, 2, top + BAR);
        context.fillRect(inward > 0 ? edge : edge - 4, top + BAR - 2, 6, 2);
        context.fillRect(inward > 0 ? edge : edge - 4, 0, 6, 2);
      }
    }
    context.fillStyle = ink("head");
    context.fillRect(x(store.frame), 0, Math.max(2, each - gap), 2);
    context.fillRect(x(store.frame) + each / 2 - 1, 0, 2, top + BAR + KEYS);

    const [row, here] = [store.frames[store.frame], store.frame];
    const parts = [`frame ${here} of ${count - 1}`];
    if (store.isKey) parts.push("corrected");
    else if (row?.status === "stale") parts.push("out of date");
    else if (row?.status === "fresh") parts.push(row.doubt ? `uncertain: ${store.named(row.doubt)}` : "propagated");
    canvas.setAttribute("aria-valuemax", String(count - 1));
    canvas.setAttribute("aria-valuenow", String(here));
    canvas.setAttribute("aria-valuetext", parts.join(", "));
  }

  /** In which frames each object is, in its colour. */
  private strips(context: CanvasRenderingContext2D, x: (index: number) => number, each: number): void {
    const things = this.store.state!.objects.filter((thing) => thing.visible);
    const high = Math.min(4, STRIPS / Math.max(1, things.length));
    things.forEach(({ id, colour }, row) => {
      context.fillStyle = colour;
      let start: number | null = null;
      this.store.frames.forEach(({ ids }, index) => {
        const inside = ids.includes(id);
        if (inside) start ??= index;
        if (start === null || (inside && index + 1 < this.store.frames.length)) return;
        context.fillRect(x(start), THUMBS + 4 + row * high, (inside ? index + 1 - start : index - start) * each, Math.max(1, high - 1));
        start = null;
      });
    });
  }

  private thumbnails(context: CanvasRenderingContext2D, width: number): void {
    const { video } = this.store.state!;
    const wide = (THUMBS * video.width) / video.height;
    const places = Math.max(1, Math.ceil((width - 2 * PAD) / wide));
    context.save();
    context.beginPath();
    context.roundRect(PAD, 0, width - 2 * PAD, THUMBS, 6);
    context.clip();
    for (let i = 0; i < places; i++) {
      const left = PAD + i * wide;
      const index = Math.min(video.frames - 1, Math.floor(((left + wide / 2 - PAD) / (width - 2 * PAD)) * video.frames));
      const picture = this.pictures.thumbnail(index, () => this.draw());
      if (picture) context.drawImage(picture, left, 0, wide, THUMBS);
    }
    context.restore();
  }
}
