// The picture that is worked at: the frame, its objects, and what the pointer does with the tool at hand.

import { onPixelRatio } from "./dom";
import { Mattes } from "./edges";
import { LabelMap } from "./labels";
import { Painter } from "./paint";
import type { Pictures } from "./pictures";
import type { Event, Point } from "./protocol";
import type { Store } from "./store";
import { type Brush, Stroke } from "./stroke";

const MOST_ZOOM = 32;
const KEYBOARD = -1; // in place of a pointer's id
const WHEEL_STEP = 40; // pixels of scrolling by which the brush changes
const CLICK = 4; // CSS pixels: a pointer that moved less has clicked

/** What was marked of one object in one frame since the tool was taken up. */
interface Marks {
  frame: number;
  object: number;
  under: LabelMap; // the frame's label map before the first mark
  box: [number, number, number, number] | null;
  clicks: [number, number, boolean][];
  scribbles: [Point[], boolean][];
}

export class Stage {
  private readonly context: CanvasRenderingContext2D;
  private readonly painter: Painter;
  private readonly mattes: Mattes;
  private zoom = 1;
  private offset: Point = [0, 0]; // of the frame's corner, in CSS pixels
  private fitted = true;
  private working: LabelMap | null = null; // what is being painted
  private stroke: Stroke | null = null; // over that; null until the label map is here
  private path: Point[] = []; // where the brush went
  private line: Point[] = []; // polygon, lasso, scribble or box in the making
  private drag: { id: number; from: Point; start: Point; moved: boolean; panning: boolean; negative: boolean } | null = null;
  private readonly touches = new Map<number, Point>();
  private pointer: Point | null = null;
  private marks: Marks | null = null;
  private request = 0;
  private waiting = false;
  private stale = true;
  private due = false;
  spaceHeld = false;
  private crosshair = false; // the pointer is moved by keys

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly store: Store,
    private readonly pictures: Pictures,
    private readonly notice: (text: string) => void,
  ) {
    this.context = canvas.getContext("2d")!;
    const { width, height } = store.state!.video;
    this.painter = new Painter(width, height);
    this.mattes = new Mattes(() => this.repaint(), (slow) => this.setSoftening(slow), notice);
    new ResizeObserver(() => this.resize()).observe(canvas);
    onPixelRatio(() => this.resize());
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", (event) => this.cancelPointer(event));
    canvas.addEventListener("pointerleave", () => {
      if (!this.crosshair) this.pointer = null;
      this.draw();
    });
    canvas.addEventListener("dblclick", () => this.closePolygon());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    store.on(["mask", "view", "state"], () => this.repaint());
    store.on(["online"], () => {
      if (!store.online && this.waiting) this.forgetMarks(); // the answer would not come any more
    });
    store.on(["frame"], () => {
      this.abandon();
      this.repaint();
    });
    store.on(["tool"], () => {
      this.abandon();
      this.canvas.dataset.tool = store.tool;
      this.draw();
    });
    canvas.dataset.tool = store.tool;
    this.resize();
  }

  // Looking ------------------------------------------------------------------------------------------------------

  repaint(): void {
    this.stale = true;
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

  fit(): void {
    this.fitted = true;
    const { width, height } = this.store.state!.video;
    const { clientWidth, clientHeight } = this.canvas;
    this.zoom = Math.min((clientWidth - 24) / width, (clientHeight - 24) / height);
    this.offset = [(clientWidth - width * this.zoom) / 2, (clientHeight - height * this.zoom) / 2];
    this.draw();
    this.store.tell("zoom");
  }

  zoomBy(factor: number, at?: Point): void {
    const centre: Point = at ?? [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2];
    const zoom = Math.max(0.05, Math.min(MOST_ZOOM, this.zoom * factor));
    this.offset = [0, 1].map((i) => centre[i] - ((centre[i] - this.offset[i]) * zoom) / this.zoom) as Point;
    this.zoom = zoom;
    this.fitted = false;
    this.draw();
    this.store.tell("zoom");
  }

  get percent(): number {
    return Math.round(this.zoom * 100 * devicePixelRatio);
  }

  private resize(): void {
    if (this.fitted) this.fit();
    this.draw();
  }

  /** Give the canvas as many pixels as it has on the screen, which may be another one than when it was drawn last. */
  private matchScreen(scale: number): void {
    const { canvas } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.max(1, Math.round(side * scale)));
    if (canvas.width === width && canvas.height === height) return;
    canvas.width = width;
    canvas.height = height;
  }

  private shown: number | null = null; // the frame whose picture is seen: the last one, until that of another is here

  /** Go to the frame that is seen: it is the one to be edited, not one whose picture is on its way. Whether any is seen. */
  toSeen(): boolean {
    if (this.shown === null) this.notice("The picture is not here yet.");
    else this.store.goTo(this.shown);
    return this.shown !== null;
  }

  private render(): void {
    const { store, context, painter } = this;
    const { width, height } = store.state!.video;
    const scale = devicePixelRatio;
    const picture = this.pictures.get(store.frame);
    if (!picture && this.shown !== store.frame && this.shown !== null) return; // keep the last one until it is here
    this.matchScreen(scale);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.setTransform(this.zoom * scale, 0, 0, this.zoom * scale, this.offset[0] * scale, this.offset[1] * scale);
    context.imageSmoothingEnabled = this.zoom * scale < 3;
    context.imageSmoothingQuality = "high";
    if (picture) {
      context.drawImage(picture, 0, 0, width, height);
      this.shown = store.frame;
      this.canvas.dataset.frame = String(store.frame);
    }
    const map = this.working ?? (this.stale ? store.labels() : null);
    if (this.stale || this.working) {
      const before = store.view === "difference" && store.frame > 0 ? store.labels(store.frame - 1) : null;
      const soft = this.softened();
      if (soft) painter.soften(...soft);
      else painter.paint(map ?? new LabelMap(width, height), store.state!.objects, store.view, store.opacity, before);
      this.canvas.dataset.edges = soft ? "soft" : "hard";
      this.stale = false;
    }
    context.drawImage(painter.canvas, 0, 0);
    this.renderTool();
  }

  /** Soft edges for the view, once they are here, unless the mask is being painted; until then it shows hard ones. */
  private softened(): [ImageBitmap, "matte" | "cutout"] | null {
    const { frame, view, edges, runsHere: runs, state } = this.store;
    if ((view !== "matte" && view !== "cutout") || edges === "none" || this.working || !runs) {
      this.mattes.leave();
      return null;
    }
    const visible = state!.objects.flatMap((thing) => (thing.visible ? thing.id : [])).join();
    const matte = this.mattes.get({ frame, runs, visible, edges });
    return matte && [matte, view];
  }

  private renderTool(): void {
    const { context, store, line } = this;
    const colour = store.activeObject?.colour ?? "#ffffff";
    const pixel = 1 / this.zoom;
    context.lineWidth = 2 * pixel;
    context.strokeStyle = colour;
    if (line.length > 1 && store.tool === "box") {
      const [[x1, y1], [x2, y2]] = [line[0], line[line.length - 1]];
      context.setLineDash([6 * pixel, 4 * pixel]);
      context.strokeRect(x1, y1, x2 - x1, y2 - y1);
      context.setLineDash([]);
    } else if (line.length) {
      context.beginPath();
      line.forEach(([x, y]) => context.lineTo(x, y));
      if (store.tool === "polygon" && this.pointer) context.lineTo(...this.toFrame(this.pointer));
      context.stroke();
      if (store.tool === "polygon") for (const point of line) this.dot(point, 4 * pixel, colour);
    }
    if (this.marks && this.marks.frame === store.frame && this.marks.object === store.active) {
      for (const [x, y, positive] of this.marks.clicks) this.dot([x, y], 5 * pixel, positive ? "#22c55e" : "#ef4444");
      for (const [points, positive] of this.marks.scribbles) {
        context.strokeStyle = positive ? "#22c55e" : "#ef4444";
        context.lineWidth = 3 * pixel;
        context.beginPath();
        points.forEach(([x, y]) => context.lineTo(x, y));
        context.stroke();
      }
    }
    if (this.crosshair && this.pointer) this.renderCrosshair(this.toFrame(this.pointer), 14 * pixel);
    if (this.pointer && (store.tool === "brush" || store.tool === "eraser") && !this.spaceHeld) {
      const [x, y] = this.toFrame(this.pointer);
      for (const [wide, ink] of [[3, "#000000"], [1.5, store.tool === "brush" ? colour : "#ffffff"]] as const) {
        context.beginPath();
        context.arc(x, y, store.brush / 2, 0, 2 * Math.PI);
        context.lineWidth = wide * pixel;
        context.strokeStyle = ink;
        context.stroke();
      }
    }
  }

  private renderCrosshair([x, y]: Point, reach: number): void {
    const { context } = this;
    for (const [wide, ink] of [[4, "#000000"], [2, "#ffffff"]] as const) {
      context.beginPath();
      for (const [dx, dy] of [[-1, 0], [1, 0], [0, -1], [0, 1]]) {
        context.moveTo(x + (dx * reach) / 4, y + (dy * reach) / 4);
        context.lineTo(x + dx * reach, y + dy * reach);
      }
      context.lineWidth = wide / this.zoom;
      context.strokeStyle = ink;
      context.stroke();
    }
  }

  private dot([x, y]: Point, radius: number, colour: string): void {
    const { context } = this;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fillStyle = colour;
    context.fill();
    context.lineWidth = radius / 3;
    context.strokeStyle = "#ffffff";
    context.stroke();
  }

  private toFrame([x, y]: Point): Point {
    return [(x - this.offset[0]) / this.zoom, (y - this.offset[1]) / this.zoom];
  }

  // The pointer --------------------------------------------------------------------------------------------------

  private at(event: PointerEvent | WheelEvent): Point {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  private wheeled = 0; // pixels, with Shift, since the last step

  private wheel(event: WheelEvent): void {
    event.preventDefault();
    if (event.shiftKey && this.paints) {
      this.wheeled += (event.deltaY || event.deltaX) * (event.deltaMode ? 30 : 1); // Shift may have it scroll sideways
      if (Math.abs(this.wheeled) < WHEEL_STEP) return;
      this.store.resizeBrush(this.wheeled < 0);
      this.wheeled = 0;
      return;
    }
    this.zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), this.at(event));
  }

  private down(event: PointerEvent): void {
    const at = this.at(event);
    this.canvas.focus();
    if (event.pointerType === "touch") {
      this.touches.set(event.pointerId, at);
      if (this.touches.size > 1) {
        if (this.drag && this.touches.has(this.drag.id)) this.abandonDrag(); // two fingers zoom and pan
        return;
      }
    }
    if (this.drag) return;
    this.crosshair = false;
    this.canvas.setPointerCapture(event.pointerId);
    const panning = this.store.tool === "move" || event.button === 1 || this.spaceHeld;
    this.press(event.pointerId, at, event.altKey || event.button === 2, panning);
  }

  private press(id: number, at: Point, negative: boolean, panning: boolean): void {
    const { store } = this;
    this.pointer = at;
    if (!panning && (!store.activeObject || !store.online)) {
      this.notice(store.online ? "Add an object first." : "The studio does not answer; what is drawn now would be lost.");
      return;
    }
    if (!panning) {
      store.stay(); // else the next frame would come under the stroke
      if (!this.toSeen()) return;
    }
    const takes = !this.paints && store.takesAway;
    this.drag = { id, from: at, start: at, moved: false, panning, negative: negative !== takes };
    if (panning) return;
    const place = this.toFrame(at);
    if (this.paints) {
      this.path = [place];
      this.paint();
    } else if (store.tool !== "polygon") this.line = [place];
    this.draw();
  }

  private get paints(): boolean {
    return this.store.tool === "brush" || this.store.tool === "eraser";
  }

  private brush(negative: boolean): Brush {
    const { brush, soft, active } = this.store;
    return { radius: brush / 2, soft, object: active, erase: this.erases(negative) };
  }

  /** Paint where the brush went last; all of where it went, once the label map is here. */
  private paint(): void {
    if (this.stroke) {
      this.stroke.to(this.path[this.path.length - 1]);
      return;
    }
    this.working = this.store.labels(); // a copy of its own
    if (!this.working || !this.drag) return;
    this.stroke = new Stroke(this.working, this.brush(this.drag.negative));
    for (const place of this.path) this.stroke.to(place);
  }

  private move(event: PointerEvent): void {
    const at = this.at(event);
    if (this.touches.has(event.pointerId) && this.touches.size === 2) {
      this.pinch(event.pointerId, at);
      return;
    }
    if (!this.crosshair) this.moveTo(event.pointerId, at);
  }

  private moveTo(id: number, at: Point): void {
    this.pointer = at;
    const { drag, store } = this;
    if (drag && drag.id === id) {
      const to = this.toFrame(at);
      drag.moved ||= Math.hypot(at[0] - drag.start[0], at[1] - drag.start[1]) > CLICK;
      if (drag.panning) {
        this.offset = [this.offset[0] + at[0] - drag.from[0], this.offset[1] + at[1] - drag.from[1]];
        this.fitted = false;
      } else if (this.paints) {
        this.path.push(to);
        this.paint();
      } else if (this.line.length && store.tool !== "polygon") this.line.push(to);
      drag.from = at;
    }
    this.draw();
  }

  private up(event: PointerEvent): void {
    this.touches.delete(event.pointerId);
    if (this.drag?.id === event.pointerId) this.release(this.at(event));
  }

  private release(at: Point): void {
    const { drag, store } = this;
    if (!drag) return;
    this.drag = null;
    const { moved } = drag;
    const line = this.line;
    if (drag.panning) return;
    switch (store.tool) {
      case "brush":
      case "eraser":
        this.painted(this.brush(drag.negative));
        break;
      case "lasso":
        this.line = [];
        if (moved) this.fill(line, drag.negative, "Lasso");
        break;
      case "polygon":
        this.corner(this.toFrame(at), drag.negative);
        break;
      case "box":
        this.line = [];
        if (moved) this.mark({ box: this.boxed(line[0], this.toFrame(at)) });
        break;
      case "click":
        this.line = [];
        if (moved) this.mark({ scribble: [thinned(line.map((p) => this.inside(p))), !drag.negative] });
        else this.mark({ click: [...this.inside(this.toFrame(at)), !drag.negative] });
        break;
    }
    this.repaint();
  }

  /** The stroke has ended: it becomes an annotation, of this frame, even if its label map comes later. */
  private painted(brush: Brush): void {
    const [{ store, working, path }, { frame }] = [this, this.store];
    const what = brush.erase ? "Erase" : "Brush";
    this.working = this.stroke = null;
    if (working) store.edit(frame, working, what);
    else
      store.withLabels(frame, (map) => {
        const stroke = new Stroke(map, brush);
        for (const place of path) stroke.to(place);
        store.edit(frame, map, what);
      });
  }

  // The pointer, moved by keys -----------------------------------------------------------------------------------

  /** Show a crosshair that keys move, or put it away. */
  toggleCrosshair(): void {
    this.abandonDrag();
    this.crosshair = !this.crosshair;
    this.pointer = this.crosshair ? [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2] : null;
    this.draw();
  }

  get hasCrosshair(): boolean {
    return this.crosshair;
  }

  /** Move the crosshair by CSS pixels. */
  moveCrosshair(x: number, y: number): void {
    const [left, top] = this.pointer ?? [0, 0];
    const { clientWidth, clientHeight } = this.canvas;
    this.moveTo(KEYBOARD, [Math.max(0, Math.min(clientWidth, left + x)), Math.max(0, Math.min(clientHeight, top + y))]);
  }

  /** Click with the crosshair; tools that drag begin to, or let go. A polygon's corner again closes it. */
  clickCrosshair(negative: boolean): void {
    const at = this.pointer;
    if (!at) return;
    const { tool } = this.store;
    const last = this.line[this.line.length - 1];
    if (tool === "polygon" && last && this.line.length > 2 && this.apart(last, this.toFrame(at)) < 1) this.closePolygon();
    else if (this.drag) this.release(at);
    else {
      this.press(KEYBOARD, at, negative, tool === "move");
      if (tool === "click" || tool === "polygon") this.release(at);
    }
  }

  private apart(one: Point, other: Point): number {
    return Math.hypot(one[0] - other[0], one[1] - other[1]) * this.zoom;
  }

  private cancelPointer(event: PointerEvent): void {
    this.touches.delete(event.pointerId);
    if (this.drag?.id === event.pointerId) this.abandonDrag();
  }

  private pinch(id: number, at: Point): void {
    const before = [...this.touches.values()];
    this.touches.set(id, at);
    const after = [...this.touches.values()];
    const middle = (points: Point[]): Point => [(points[0][0] + points[1][0]) / 2, (points[0][1] + points[1][1]) / 2];
    const apart = (points: Point[]): number => Math.hypot(points[0][0] - points[1][0], points[0][1] - points[1][1]);
    const [old, now] = [middle(before), middle(after)];
    this.offset = [this.offset[0] + now[0] - old[0], this.offset[1] + now[1] - old[1]];
    this.zoomBy(apart(after) / Math.max(1, apart(before)), now);
  }

  private erases(negative: boolean): boolean {
    return (this.store.tool === "eraser") !== negative;
  }

  private inside([x, y]: Point): Point {
    const { width, height } = this.store.state!.video;
    return [Math.max(0, Math.min(width - 1, x)), Math.max(0, Math.min(height - 1, y))];
  }

  private boxed(from: Point, to: Point): [number, number, number, number] {
    const [[x1, y1], [x2, y2]] = [this.inside(from), this.inside(to)];
    return [Math.min(x1, x2), Math.min(y1, y2), Math.abs(x2 - x1) + 1, Math.abs(y2 - y1) + 1];
  }

  private fill(line: Point[], erase: boolean, what: string): void {
    const { frame, active } = this.store;
    if (line.length < 3) return;
    this.store.withLabels(frame, (map) => {
      map.fill(line, active, erase);
      this.store.edit(frame, map, erase ? `${what}, take away` : what);
    });
  }

  // The polygon --------------------------------------------------------------------------------------------------

  private negativePolygon = false;

  private corner(place: Point, negative: boolean): void {
    if (!this.line.length) this.negativePolygon = negative;
    const [first] = this.line;
    if (this.line.length > 2 && this.apart(place, first) < 10) this.closePolygon();
    else this.line.push(place);
  }

  closePolygon(): void {
    if (this.store.tool !== "polygon" || this.line.length < 3) return;
    const line = this.line;
    this.line = [];
    this.fill(line, this.negativePolygon, "Polygon");
    this.repaint();
  }

  // Masks out of marks -------------------------------------------------------------------------------------------

  private mark(add: { box?: Marks["box"]; click?: [number, number, boolean]; scribble?: [Point[], boolean] }): void {
    const { frame, active } = this.store;
    this.store.withLabels(frame, (under) => {
      if (this.store.frame === frame && this.store.active === active) this.ask(add, under);
    });
  }

  private ask(add: { box?: Marks["box"]; click?: [number, number, boolean]; scribble?: [Point[], boolean] }, under: LabelMap): void {
    const { store } = this;
    if (this.marks?.frame !== store.frame || this.marks.object !== store.active) {
      this.marks = { frame: store.frame, object: store.active, under, box: null, clicks: [], scribbles: [] };
    }
    if (add.box) Object.assign(this.marks, { box: add.box, clicks: [], scribbles: [] });
    if (add.click) this.marks.clicks.push(add.click);
    if (add.scribble) this.marks.scribbles.push(add.scribble);
    const { frame, box, clicks, scribbles } = this.marks;
    this.request += 1;
    this.setWaiting(true);
    store.send({ type: "first", request: this.request, frame, box, clicks, scribbles });
  }

  /** The answer to marks; it becomes an annotation of its frame. */
  proposed(event: Extract<Event, { type: "proposal" }>): void {
    if (event.request !== this.request || !this.marks) return;
    this.setWaiting(false);
    const { marks, store } = this;
    if (event.problem || !event.runs) {
      this.notice(event.problem ?? "No object was found there.");
      this.marks = null;
    } else if (marks.frame === store.frame) {
      const map = marks.under.copy();
      map.replace(marks.object, LabelMap.decode(event.runs, map.width, map.height));
      const count = marks.clicks.length + marks.scribbles.length + (marks.box ? 1 : 0);
      store.edit(marks.frame, map, count > 1 ? "Refine the mask" : marks.box ? "Box" : "Click");
    }
    this.repaint();
  }

  /** The marks no longer say how the mask came about: it was changed otherwise. */
  forgetMarks(): void {
    this.marks = null;
    this.request += 1;
    this.setWaiting(false);
    this.draw();
  }

  /** Whether a mask out of marks is on its way. */
  get isWaiting(): boolean {
    return this.waiting;
  }

  private softening = false;

  /** Whether soft edges are on their way for longer than one waits without a word. */
  get isSoftening(): boolean {
    return this.softening;
  }

  private setSoftening(softening: boolean): void {
    if (this.softening !== softening) queueMicrotask(() => this.store.tell("hint"));
    this.softening = softening;
  }

  private setWaiting(waiting: boolean): void {
    if (this.waiting !== waiting) queueMicrotask(() => this.store.tell("hint"));
    this.waiting = waiting;
    this.canvas.toggleAttribute("data-waiting", this.waiting);
    this.canvas.setAttribute("aria-busy", String(waiting));
  }

  // Giving up ----------------------------------------------------------------------------------------------------

  /** Leave what is half done. Whether anything was. */
  abandon(): boolean {
    const had = this.line.length > 0 || this.drag !== null || this.marks !== null;
    this.line = [];
    this.abandonDrag();
    this.forgetMarks();
    return had;
  }

  private abandonDrag(): void {
    this.drag = null;
    if (this.store.tool !== "polygon") this.line = []; // its corners were set by clicks of before
    this.working = this.stroke = null;
    this.repaint();
  }
}

/** At most some hundred points of a line, evenly. */
function thinned(points: Point[]): Point[] {
  const step = Math.ceil(points.length / 300);
  return points.filter((_, i) => i % step === 0);
}
