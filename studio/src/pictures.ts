// Frames as bitmaps: fetched by number, kept within a budget, fetched ahead in the direction of travel.

import { BrowserDecoder } from "./decoding";

const BUDGET = 320 * 2 ** 20; // bytes of bitmaps
const AHEAD = 8;
const AT_ONCE = 3; // requests for frames
const AGAIN_MS = 700; // until a thumbnail that was not made yet is asked for again

export class Pictures {
  private readonly kept = new Map<number, ImageBitmap>();
  private readonly coming = new Map<number, Promise<void>>();
  private readonly thumbs = new Map<number, ImageBitmap | null>();
  private wanted = 0;
  private decoder: BrowserDecoder | null = null;

  constructor(
    private readonly count: number,
    private readonly of: string, // what tells the video from others, which the browser may have kept pictures of
    private readonly bytes: number,
    private readonly arrived: (index: number) => void,
    private readonly failed: (problem: string) => void,
  ) {}

  /** Have the browser decode what is ahead, if it gives the server's pictures. Whether it does. */
  async decodeAhead(size: readonly [number, number]): Promise<boolean> {
    this.decoder = await BrowserDecoder.open(this.of, size, this.count, (index, picture) => this.keep(index, picture)).catch(() => null);
    return this.decoder !== null;
  }

  /** The bitmap of a frame if it is here; else it is fetched, and `arrived` says when. */
  get(index: number): ImageBitmap | null {
    const step = index - this.wanted;
    this.wanted = index;
    const found = this.kept.get(index);
    if (found) {
      this.kept.delete(index);
      this.kept.set(index, found);
    }
    this.fetchWanted();
    // Ahead only where the user goes step by step: who jumps about waits for nothing but the frame that is wanted.
    const next = Math.min(index + 1, this.count - 1);
    if (this.decoder?.works && step > 0 && step <= 2) this.decoder.ahead(next, index + AHEAD, !this.kept.has(next));
    else if (found && Math.abs(step) <= 2) {
      for (let i = 1; i <= AHEAD && this.coming.size < AT_ONCE; i++) {
        const other = index + i * (step < 0 ? -1 : 1);
        if (other >= 0 && other < this.count && !this.kept.has(other)) void this.fetch(other);
      }
    }
    return found ?? null;
  }

  /** Fetch the frame that is wanted, unless others are on their way: then as soon as one is here. */
  private fetchWanted(): void {
    if (!this.kept.has(this.wanted) && this.coming.size < AT_ONCE) void this.fetch(this.wanted);
  }

  has(index: number): boolean {
    return this.kept.has(index);
  }

  thumbnail(index: number, done: () => void): ImageBitmap | null {
    if (!this.thumbs.has(index)) {
      this.thumbs.set(index, null);
      void this.load(`/api/thumbnails/${index}.jpg?of=${this.of}`).then((bitmap) => {
        if (bitmap) this.thumbs.set(index, bitmap);
        else setTimeout(() => this.thumbs.delete(index), AGAIN_MS);
        if (bitmap) done();
        else setTimeout(done, AGAIN_MS + 20);
      });
    }
    return this.thumbs.get(index) ?? null;
  }

  private fetch(index: number): Promise<void> {
    const coming = this.coming.get(index);
    if (coming) return coming;
    const promise = this.load(`/api/frames/${index}.jpg?of=${this.of}`).then((bitmap) => {
      this.coming.delete(index);
      if (index !== this.wanted) this.fetchWanted();
      if (bitmap) this.keep(index, bitmap);
    });
    this.coming.set(index, promise);
    return promise;
  }

  private keep(index: number, bitmap: ImageBitmap): void {
    if (this.kept.has(index)) {
      bitmap.close();
      return;
    }
    this.kept.set(index, bitmap);
    const most = Math.max(AHEAD + 2, Math.floor(BUDGET / this.bytes));
    for (const [old, picture] of this.kept) {
      if (this.kept.size <= most) break;
      if (old !== this.wanted) {
        this.kept.delete(old);
        picture.close();
      }
    }
    this.arrived(index);
  }

  private async load(path: string): Promise<ImageBitmap | null> {
    try {
      const answer = await fetch(path);
      if (!answer.ok) {
        const said = (await answer.json().catch(() => null)) as { problem?: string } | null;
        this.failed(said?.problem ?? "A frame could not be loaded.");
        return null;
      }
      if (answer.status === 204) return null;
      return await createImageBitmap(await answer.blob());
    } catch {
      return null; // the server is away: the connection says so
    }
  }
}
