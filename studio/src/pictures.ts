// Frames as bitmaps: fetched by number, kept within a budget, fetched ahead in the direction of travel.

const BUDGET = 320 * 2 ** 20; // bytes of bitmaps
const AHEAD = 8;

export class Pictures {
  private readonly kept = new Map<number, ImageBitmap>();
  private readonly coming = new Map<number, Promise<void>>();
  private readonly thumbs = new Map<number, ImageBitmap | null>();
  private wanted = 0;
  private before = 0;

  constructor(
    private readonly count: number,
    private readonly bytes: number,
    private readonly arrived: (index: number) => void,
    private readonly failed: (problem: string) => void,
  ) {}

  /** The bitmap of a frame if it is here; else it is fetched, and `arrived` says when. */
  get(index: number): ImageBitmap | null {
    const step = index >= this.before ? 1 : -1;
    this.before = this.wanted;
    this.wanted = index;
    const found = this.kept.get(index);
    if (found) {
      this.kept.delete(index);
      this.kept.set(index, found);
    } else void this.fetch(index);
    if (this.coming.size < 4) {
      for (let i = 1; i <= AHEAD && this.coming.size < 6; i++) {
        const next = index + i * step;
        if (next >= 0 && next < this.count && !this.kept.has(next)) void this.fetch(next);
      }
    }
    return found ?? null;
  }

  has(index: number): boolean {
    return this.kept.has(index);
  }

  thumbnail(index: number, done: () => void): ImageBitmap | null {
    if (!this.thumbs.has(index)) {
      this.thumbs.set(index, null);
      void this.load(`/api/thumbnails/${index}.jpg`).then((bitmap) => {
        if (bitmap) this.thumbs.set(index, bitmap);
        else this.thumbs.delete(index);
        if (bitmap) done();
      });
    }
    return this.thumbs.get(index) ?? null;
  }

  private fetch(index: number): Promise<void> {
    const coming = this.coming.get(index);
    if (coming) return coming;
    const promise = this.load(`/api/frames/${index}.jpg`).then((bitmap) => {
      this.coming.delete(index);
      if (!bitmap) return;
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
    });
    this.coming.set(index, promise);
    return promise;
  }

  private async load(path: string): Promise<ImageBitmap | null> {
    try {
      const answer = await fetch(path);
      if (!answer.ok) {
        const said = (await answer.json().catch(() => null)) as { problem?: string } | null;
        this.failed(said?.problem ?? "A frame could not be loaded.");
        return null;
      }
      return await createImageBitmap(await answer.blob());
    } catch {
      return null; // the server is away: the connection says so
    }
  }
}
