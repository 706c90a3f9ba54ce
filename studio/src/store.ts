// All that the page knows: what the server said, and where the user is. Views listen, and draw what changed.

import { LabelMap } from "./labels";
import type { Command, Event, FrameRow, State, Thing } from "./protocol";

const AHEAD = 12; // label maps that are asked for together

export type Tool = "move" | "click" | "box" | "brush" | "eraser" | "polygon" | "lasso";
export type View = "overlay" | "outline" | "matte" | "cutout" | "difference";
export interface Range {
  first: number;
  last: number;
}

export type Topic = "range" | "hint" | "brush" | "zoom" | "state" | "frames" | "mask" | "frame" | "tool" | "view" | "job" | "online" | "play";

export interface Frame {
  status: FrameRow[1];
  confidence: number | null;
  doubt: string; // why it deserves a look; empty: it does not
  ids: number[]; // of the objects in sight
}

export class Store {
  state: State | null = null;
  frames: Frame[] = [];
  online = false;
  frame = 0;
  active = 1;
  tool: Tool = "click";
  view: View = "overlay";
  opacity = 0.5;
  edges = "guided"; // of mattes, looked at and exported
  brush = 24;
  soft = 0;
  takesAway = false; // what is clicked, or drawn around, goes
  range: Range | null = null; // in which propagation stays
  playing = false;
  following = false; // the play head goes along with the propagation, until the user goes elsewhere
  send: (command: Command) => boolean = () => false; // whether there was a connection

  private readonly runs = new Map<number, number[]>();
  private readonly asked = new Set<number>();
  private readonly awaited = new Set<number>(); // of those, the ones that have not come yet
  private readonly edits = new Map<number, number>(); // frame -> its edits that the server has not taken in yet
  private readonly aside = new Map<number, number[]>(); // what it said of these frames meanwhile
  private adding = false; // an object, which is not here yet
  private readonly waiting: { frame: number; call: (map: LabelMap) => void }[] = [];
  private readonly listeners: { topics: Topic[]; call: () => void }[] = [];

  on(topics: Topic[], call: () => void): void {
    this.listeners.push({ topics, call });
  }

  tell(topic: Topic): void {
    for (const { topics, call } of this.listeners) if (topics.includes(topic)) call();
  }

  hear(event: Event): void {
    switch (event.type) {
      case "state":
        if (event.video.frames !== this.state?.video.frames) this.frames = Array.from({ length: event.video.frames }, () => ({ status: "none", confidence: null, doubt: "", ids: [] }));
        this.takeState(event);
        this.tell("state");
        this.tell("job");
        break;
      case "frames": {
        for (const [index, status, confidence, doubt, ids] of event.frames) this.frames[index] = { status, confidence, doubt, ids };
        // Objects may have come or gone everywhere: what is not shown is asked for again when it is.
        if (event.frames.length === this.frames.length) {
          const here = this.runs.get(this.frame);
          this.runs.clear();
          this.asked.clear();
          this.awaited.clear();
          if (here) this.runs.set(this.frame, here);
          this.look([this.frame]);
        }
        this.tell("frames");
        break;
      }
      case "mask": {
        const answers = this.awaited.delete(event.frame); // the propagation need not be there
        this.asked.add(event.frame);
        if (this.edits.has(event.frame)) {
          this.aside.set(event.frame, event.runs); // the page's own is newer
          break;
        }
        this.runs.set(event.frame, event.runs);
        if (!event.glimpse) this.serve(event.frame);
        if (this.following && this.state?.job && !answers) this.goTo(event.frame, true);
        this.tell("mask");
        break;
      }
      case "edited":
        this.takenIn(event.frame);
        break;
      case "notice":
        if (event.to !== "add-object" || !this.state) break;
        this.adding = false;
        this.takeState(this.state);
        this.tell("state");
        break;
      case "at":
        if (this.state?.job) Object.assign(this.state.job, { done: event.done, total: event.total, at: event.at });
        this.tell("job");
        break;
    }
  }

  setOnline(online: boolean): void {
    this.online = online;
    if (!online) {
      this.asked.clear();
      this.awaited.clear();
      this.aside.clear();
      this.edits.clear();
      this.waiting.length = 0;
      this.adding = false;
    }
    this.tell("online");
  }

  private takeState(state: State): void {
    const known = this.state?.objects.map(({ id }) => id) ?? [];
    const added = this.adding ? state.objects.find(({ id }) => !known.includes(id)) : undefined;
    this.state = state;
    if (added) [this.active, this.adding] = [added.id, false];
    else if (!this.activeObject && !this.adding) this.active = state.objects[0]?.id ?? 0;
  }

  /** The server has taken in an edit, or refused it; one that this page does not wait for is of before it was offline. */
  private takenIn(frame: number): void {
    const count = this.edits.get(frame);
    if (count === undefined) return;
    if (count > 1) this.edits.set(frame, count - 1);
    else {
      this.edits.delete(frame);
      this.settle(frame);
    }
  }

  /** All edits of a frame were taken in, or refused: what the server has is shown. */
  private settle(frame: number): void {
    const runs = this.aside.get(frame);
    this.aside.delete(frame);
    if (runs) this.runs.set(frame, runs);
    else {
      this.asked.delete(frame);
      this.look([frame]);
    }
    this.tell("mask");
  }

  get activeObject(): Thing | undefined {
    return this.state?.objects.find((thing) => thing.id === this.active);
  }

  /** What the server says of "object 3", with the name that the user gave it. */
  named(text: string): string {
    return text.replace(/^object (\d+)/, (said, id) => this.state?.objects.find((thing) => thing.id === Number(id))?.name ?? said);
  }

  get isKey(): boolean {
    return this.state?.keys.includes(this.frame) ?? false;
  }

  /** The label map of a frame; one that is not known yet is asked for, and null. */
  labels(index = this.frame): LabelMap | null {
    const runs = this.runs.get(index);
    if (!runs || !this.state) {
      this.look([index]);
      return null;
    }
    return LabelMap.decode(runs, this.state.video.width, this.state.video.height);
  }

  /** The label map of the frame that is looked at as it travels; undefined until it is here, and at the server. */
  get runsHere(): number[] | undefined {
    return this.edits.has(this.frame) ? undefined : this.runs.get(this.frame);
  }

  /** Do something with a frame's label map, a copy: now, or as soon as it is here. */
  withLabels(frame: number, call: (map: LabelMap) => void): void {
    const map = this.labels(frame);
    if (map) call(map);
    else this.waiting.push({ frame, call });
  }

  private serve(frame: number): void {
    for (const one of this.waiting.filter((each) => each.frame === frame)) {
      this.waiting.splice(this.waiting.indexOf(one), 1);
      one.call(this.labels(frame)!);
    }
  }

  /** Ask for label maps that are not known yet. */
  look(indices: number[]): void {
    const wanted = indices.filter((i) => i >= 0 && i < this.frames.length && !this.asked.has(i));
    if (!wanted.length || !this.online) return;
    for (const index of wanted) {
      this.asked.add(index);
      this.awaited.add(index);
    }
    this.send({ type: "look", frames: wanted });
  }

  /** Annotate a frame: shown at once, and sent. */
  edit(frame: number, map: LabelMap, what: string): void {
    const runs = map.encode();
    this.runs.set(frame, runs);
    if (this.send({ type: "edit", frame, runs, what })) this.edits.set(frame, (this.edits.get(frame) ?? 0) + 1);
    this.tell("mask");
  }

  /** Add an object; it is the active one as soon as it is here, and until then none is. */
  addObject(): void {
    this.adding = this.send({ type: "add-object" });
    if (this.adding) this.set("active", 0, "state");
  }

  /** The play head stays where it is. */
  stay(): void {
    this.following = false;
    this.set("playing", false, "play");
  }

  goTo(index: number, follows = false): void {
    this.following &&= follows;
    const wanted = Math.max(0, Math.min(this.frames.length - 1, Math.round(index)));
    if (wanted === this.frame) return;
    // Ahead only where the user goes step by step: who jumps about waits for nothing but the frame that is wanted.
    const ahead = Math.abs(wanted - this.frame) <= 2 ? AHEAD : 1;
    this.frame = wanted;
    if (!follows) this.look(Array.from({ length: ahead }, (_, i) => wanted + i));
    this.tell("frame");
  }

  /** The next frame from here on, round the end, that fits; null if none does. */
  next(fits: (index: number) => boolean, step: 1 | -1 = 1): number | null {
    const count = this.frames.length;
    for (let i = 1; i <= count; i++) {
      const index = (((this.frame + step * i) % count) + count) % count;
      if (fits(index)) return index;
    }
    return null;
  }

  /** The first corrected frame after this one; null if there is none. */
  get nextKey(): number | null {
    return this.state?.keys.find((key) => key > this.frame) ?? null;
  }

  /** Propagate, within the range. toNext: no further than the next corrected frame. */
  propagate(direction: "forward" | "backward" | "both", toNext = false): void {
    this.following = true;
    const end = toNext && this.nextKey !== null ? this.nextKey - 1 : this.frames.length - 1;
    this.send({ type: "propagate", direction, frame: this.frame, first: this.range?.first ?? 0, last: Math.min(end, this.range?.last ?? end) });
  }

  /** Let propagation stay within some frames; null: it may go anywhere. A first frame after the last moves that along. */
  setRange(first: number | null, last: number | null): void {
    const end = this.frames.length - 1;
    const within = (index: number): number => Math.max(0, Math.min(end, Math.round(index) || 0));
    const [from, to] = [within(first ?? 0), within(last ?? end)];
    const moved = this.range?.first !== from && first !== null;
    const range = from <= to ? { first: from, last: to } : moved ? { first: from, last: end } : { first: 0, last: to };
    this.range = range.first === 0 && range.last === end ? null : range;
    this.tell("range");
  }

  /** Make the brush larger or smaller, by a step that can be seen. */
  resizeBrush(larger: boolean): void {
    this.set("brush", larger ? Math.min(200, Math.ceil(this.brush * 1.2)) : Math.max(1, Math.floor(this.brush / 1.2)), "brush");
  }

  set<K extends "takesAway" | "tool" | "view" | "opacity" | "edges" | "brush" | "soft" | "active" | "playing">(key: K, value: this[K], topic: Topic): void {
    this[key] = value;
    this.tell(topic);
  }
}
