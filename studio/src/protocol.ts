// What travels between the page and the server; the server's side is commands.py and desk.py.

export interface Thing {
  id: number;
  name: string;
  colour: string;
  visible: boolean;
}

export interface JobState {
  what: string;
  at: string;
  done: number;
  total: number;
  stopping: boolean;
}

export interface State {
  type: "state";
  version: string;
  video: { id: string; name: string; width: number; height: number; frames: number; fps: number | null };
  objects: Thing[];
  method: { method: string; short_side: number | null; device: string; precision: string };
  methods: { name: string; summary: string }[];
  keys: number[];
  undo: string | null;
  redo: string | null;
  job: JobState | null;
  problem: string | null;
  command: string | null;
  exports: { name: string; summary: string; has_alpha: boolean; group: "usual" | "alpha" | "other" }[];
  edges: string[]; // how those of alpha can be made
}

export type Status = "none" | "fresh" | "stale";
/** [frame, status, least confidence of its objects, why it deserves a look, ids of the objects in sight] */
export type FrameRow = [number, Status, number | null, string, number[]];

export type Event =
  | State
  | { type: "frames"; frames: FrameRow[] }
  | { type: "mask"; frame: number; runs: number[]; glimpse: boolean }
  | { type: "edited"; frame: number } // an edit of this page was taken in, or refused; what it changed was told before
  | { type: "at"; done: number; total: number; at: string }
  | { type: "proposal"; request: number; runs: number[] | null; problem: string | null }
  | { type: "notice"; text: string; to: string }
  | { type: "opened" }; // another project is, in place of this one

export type Point = [number, number];

export type Command =
  | { type: "look"; frames: number[] }
  | { type: "edit"; frame: number; runs: number[]; what: string }
  | { type: "shape"; frame: number; object: number; do: "fill" | "grow" | "shrink" | "tidy" }
  | { type: "clear"; frame: number }
  | { type: "keep"; frame: number }
  | {
      type: "first";
      request: number;
      frame: number;
      box: [number, number, number, number] | null;
      clicks: [number, number, boolean][];
      scribbles: [Point[], boolean][];
    }
  | { type: "add-object"; name?: string }
  | { type: "change-object"; object: number; name?: string; colour?: string; visible?: boolean }
  | { type: "remove-object"; object: number }
  | { type: "undo" }
  | { type: "redo" }
  | { type: "choose"; method: string }
  | { type: "propagate"; direction: "forward" | "backward" | "both"; frame: number; first?: number; last?: number }
  | { type: "stop" };
