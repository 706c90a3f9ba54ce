// Soft edges: how they are made, which exports and the page share, and those of the frame that is looked at.

import { make } from "./dom";
import type { Store } from "./store";

const REST_MS = 150; // the play head stays for so long before edges are asked for: who scrubs waits for none
const LONG_MS = 1000; // after which a wait is spoken of

const NAMES: Record<string, string> = {
  none: "Hard, as they are drawn",
  guided: "Soft, along the picture",
  "closed-form": "Soft, for hair and blur (slow)",
};

/** Let a list choose how edges are made. */
export function chooseEdges(store: Store, list: HTMLSelectElement): void {
  list.replaceChildren(...store.state!.edges.map((name) => make("option", { value: name }, NAMES[name] ?? name)));
  list.addEventListener("change", () => store.set("edges", list.value, "view"));
  const show = (): void => void (list.value = store.edges);
  store.on(["view"], show);
  show();
}

/** What a matte is of. */
interface Of {
  frame: number;
  runs: number[]; // its label map
  visible: string; // ids of the objects in the matte
  edges: string;
}

/** The matte of the frame that is looked at, computed by the server. */
export class Mattes {
  private shown: { of: Of; picture: ImageBitmap } | null = null;
  private wanted: Of | null = null;
  private asking = false;
  private rest = 0;

  constructor(
    private readonly arrived: () => void,
    private readonly slow: (slow: boolean) => void,
    private readonly failed: (problem: string) => void,
  ) {}

  /** The matte, grey; null: `arrived` says when it is here. */
  get(of: Of): ImageBitmap | null {
    if (this.shown && same(this.shown.of, of)) {
      this.want(null);
      return this.shown.picture;
    }
    if (!this.wanted || !same(this.wanted, of)) this.want(of);
    return null;
  }

  /** No matte is looked at. */
  leave(): void {
    this.want(null);
  }

  private want(of: Of | null): void {
    this.wanted = of;
    clearTimeout(this.rest);
    if (of) this.rest = setTimeout(() => void this.ask(), REST_MS);
  }

  private async ask(): Promise<void> {
    const of = this.wanted;
    if (this.asking || !of) return;
    this.asking = true; // one at a time: the server computes each that it is asked for
    const long = setTimeout(() => this.slow(true), LONG_MS);
    const picture = await this.load(of);
    clearTimeout(long);
    this.slow(false);
    this.asking = false;
    if (this.wanted !== of) {
      picture?.close();
      void this.ask();
    } else if (picture) {
      this.shown?.picture.close();
      this.shown = { of, picture };
      this.arrived();
    } else this.wanted = null; // the next time that it is drawn it is tried again
  }

  private async load({ frame, edges }: Of): Promise<ImageBitmap | null> {
    try {
      const answer = await fetch(`/api/mattes/${frame}.png?edges=${encodeURIComponent(edges)}`);
      if (answer.ok) return await createImageBitmap(await answer.blob(), { colorSpaceConversion: "none" });
      const said = (await answer.json().catch(() => null)) as { problem?: string } | null;
      this.failed(said?.problem ?? "Soft edges could not be made.");
    } catch {
      // the server is away: the connection says so
    }
    return null;
  }
}

function same(one: Of, other: Of): boolean {
  return (
    one.frame === other.frame &&
    one.visible === other.visible &&
    one.edges === other.edges &&
    one.runs.length === other.runs.length &&
    one.runs.every((value, i) => value === other.runs[i])
  );
}
