// Frames decoded by the browser, where it can: packets come from the server with the numbers of their frames, so that
// each picture has its number. It is used once its pictures were found to be those of the server.

interface Coded {
  codec: string;
  description: string;
  groups: number[]; // the first frame of each
}

interface Packet {
  index: number; // -1: not shown
  key: boolean;
  data: Uint8Array;
}

const QUEUE = 6; // packets that the decoder has before it
const PROBE = 3; // neighbouring frames that are compared
const SMALL = [64, 36] as const; // size in which they are
const PATIENCE_MS = 60_000; // for a busy machine: nobody waits
const ALIKE = 5; // mean difference of 255, with what JPEG loses

export class BrowserDecoder {
  private decoder: VideoDecoder | null = null;
  private packets: Packet[] = [];
  private fed = 0;
  private group = -1; // in `groups`, the one that is fed
  private passed = -1; // the last frame that came out
  private from = 0; // frames before are not wanted
  private limit = -1; // nor those after
  private loading = false;
  private flushed = false;
  private pending = 0; // pictures in the making
  private run = 0; // what comes out of an earlier one is not wanted
  private broken = false;

  private constructor(
    private readonly coded: Coded,
    private readonly of: string,
    private readonly size: readonly [number, number],
    private readonly count: number,
    private deliver: (index: number, picture: ImageBitmap) => void,
  ) {}

  /** A decoder whose pictures are those of the server, by number; null where there is none. */
  static async open(of: string, size: readonly [number, number], count: number, deliver: (index: number, picture: ImageBitmap) => void): Promise<BrowserDecoder | null> {
    if (typeof VideoDecoder === "undefined") return null;
    const answer = await fetch(`/api/coded?of=${of}`);
    if (answer.status !== 200) return null;
    const made = new BrowserDecoder((await answer.json()) as Coded, of, size, count, deliver);
    const supported = await VideoDecoder.isConfigSupported(made.config).catch(() => null);
    if (!supported?.supported) return null;
    const { groups } = made.coded;
    for (const start of new Set([0, groups[Math.floor(groups.length / 2)]])) if (!(await made.agrees(start))) return null;
    made.restart(0);
    made.deliver = deliver;
    return made;
  }

  /** Whether it has not failed. */
  get works(): boolean {
    return !this.broken;
  }

  /** See to it that some frames come, the sooner ones first. missing: the first of them is not at hand. */
  ahead(from: number, limit: number, missing: boolean): void {
    const group = this.groupOf(from);
    const gone = missing && from <= this.passed && this.pending === 0; // it came out, and was not kept
    if (!this.decoder || gone || group > this.group + 1) this.restart(group);
    this.from = from;
    this.limit = Math.min(limit, this.count - 1);
    this.pump();
  }

  private get config(): VideoDecoderConfig {
    const description = Uint8Array.from(atob(this.coded.description), (c) => c.charCodeAt(0));
    return { codec: this.coded.codec, description, optimizeForLatency: true };
  }

  private groupOf(index: number): number {
    let found = 0;
    this.coded.groups.forEach((first, i) => {
      if (first <= index) found = i;
    });
    return found;
  }

  private restart(group: number): void {
    if (this.decoder && this.decoder.state !== "closed") this.decoder.close();
    const run = ++this.run;
    this.decoder = new VideoDecoder({
      output: (frame) => void this.came(frame, run),
      error: () => {
        if (run === this.run) this.broken = true; // the server's pictures are there
      },
    });
    this.decoder.configure(this.config);
    this.packets = [];
    this.fed = 0;
    this.passed = -1;
    this.group = group - 1;
    this.loading = this.flushed = false;
  }

  private pump(): void {
    const { decoder } = this;
    if (this.broken || !decoder || decoder.state !== "configured") return;
    while (this.passed < this.limit && this.fed < this.packets.length && decoder.decodeQueueSize < QUEUE) {
      const { index, key, data } = this.packets[this.fed++];
      decoder.decode(new EncodedVideoChunk({ type: key ? "key" : "delta", timestamp: index * 1000, data }));
    }
    if (this.passed >= this.limit || this.fed < this.packets.length || this.loading) return;
    if (this.group + 1 < this.coded.groups.length) void this.load(this.run);
    else if (!this.flushed) {
      this.flushed = true;
      void decoder.flush().catch(() => null); // the last frames come out
    }
  }

  private async load(run: number): Promise<void> {
    this.loading = true;
    const answer = await fetch(`/api/coded/${this.coded.groups[this.group + 1]}?of=${this.of}`).catch(() => null);
    if (run !== this.run) return;
    this.loading = false;
    if (!answer?.ok) {
      this.broken = true;
      return;
    }
    const view = new DataView(await answer.arrayBuffer());
    if (run !== this.run) return;
    this.packets = [];
    for (let at = 0; at < view.byteLength; ) {
      const size = view.getUint32(at + 5, true);
      this.packets.push({ index: view.getInt32(at, true), key: view.getUint8(at + 4) === 1, data: new Uint8Array(view.buffer, at + 9, size) });
      at += 9 + size;
    }
    this.group += 1;
    this.fed = 0;
    this.pump();
  }

  private async came(frame: VideoFrame, run: number): Promise<void> {
    const index = Math.round(frame.timestamp / 1000);
    if (run === this.run) this.passed = Math.max(this.passed, index);
    const wanted = run === this.run && index >= this.from;
    this.pending += 1;
    const picture = wanted ? await createImageBitmap(frame).catch(() => null) : null;
    frame.close();
    this.pending -= 1;
    if (picture) this.deliver(index, picture);
    if (run === this.run) this.pump();
  }

  /** Whether neighbouring frames are those of the server: each is more like its own than like its neighbours. */
  private async agrees(start: number): Promise<boolean> {
    const last = Math.min(this.count, start + PROBE) - 1;
    const mine = new Map<number, Uint8ClampedArray>();
    const all = new Promise<boolean>((resolve) => {
      setTimeout(() => resolve(false), PATIENCE_MS);
      this.deliver = (index, picture) => {
        if ([picture.width, picture.height].join() !== this.size.join()) resolve(false);
        if (index <= last) mine.set(index, small(picture));
        picture.close();
        if (mine.size === last - start + 1) resolve(true);
      };
    });
    this.restart(this.groupOf(start));
    [this.from, this.limit] = [start, last];
    this.pump();
    if (!(await all)) return false;
    const theirs = new Map<number, Uint8ClampedArray>();
    for (let i = start; i <= last; i++) {
      const answer = await fetch(`/api/frames/${i}.jpg?of=${this.of}`);
      if (!answer.ok) return false;
      const picture = await createImageBitmap(await answer.blob());
      theirs.set(i, small(picture));
      picture.close();
    }
    for (const [i, picture] of mine) {
      const apart = difference(picture, theirs.get(i)!);
      if (apart > ALIKE) return false;
      for (const other of theirs.values()) if (difference(picture, other) < apart - 0.2) return false;
    }
    return true;
  }
}

function small(picture: ImageBitmap): Uint8ClampedArray {
  const context = new OffscreenCanvas(...SMALL).getContext("2d", { willReadFrequently: true })!;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, ...SMALL);
  return context.getImageData(0, 0, ...SMALL).data;
}

function difference(one: Uint8ClampedArray, other: Uint8ClampedArray): number {
  let sum = 0;
  for (let i = 0; i < one.length; i++) sum += Math.abs(one[i] - other[i]);
  return (sum / one.length) * (4 / 3); // alpha does not differ
}
