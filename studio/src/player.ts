// Playing, and the buttons below the picture that go from frame to frame.

import { element, onClick } from "./dom";
import { icon } from "./icons";
import type { Pictures } from "./pictures";
import type { Store } from "./store";

export function addPlayer(store: Store, pictures: Pictures, notice: (text: string) => void): void {
  for (const id of ["first", "previous", "next", "last"]) element(id).append(icon(id));
  const go = (index: () => number): (() => void) => () => {
    store.set("playing", false, "play");
    store.goTo(index());
  };
  onClick("first", go(() => 0));
  onClick("last", go(() => store.frames.length - 1));
  onClick("previous", go(() => store.frame - 1));
  onClick("next", go(() => store.frame + 1));
  onClick("next-key", () => jump(store, "key", notice));
  onClick("next-doubt", () => jump(store, "doubt", notice));
  const play = onClick("play", () => togglePlay(store));
  const field = element<HTMLInputElement>("frame");
  field.addEventListener("change", () => {
    const typed = field.value;
    if (typed === "") return;
    store.stay();
    store.goTo(Number(typed));
  });
  field.addEventListener("blur", () => setTimeout(show)); // a number that no frame has gives way to that of the one that is shown
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") field.blur();
  });
  const show = (): void => {
    field.max = String(store.frames.length - 1);
    if (document.activeElement !== field) field.value = String(store.frame);
    element("of").textContent = `of ${store.frames.length - 1}`;
    play.replaceChildren(icon(store.playing ? "pause" : "play"));
    play.setAttribute("aria-label", store.playing ? "Pause" : "Play");
    element<HTMLButtonElement>("next-doubt").disabled = !store.frames.some((frame) => frame.doubt !== "");
    element<HTMLButtonElement>("next-key").disabled = !store.state?.keys.length;
  };
  store.on(["frame", "play", "state", "frames"], show);
  show();

  let began = 0;
  let from = 0;
  const tick = (now: number): void => {
    if (!store.playing) return;
    const due = from + Math.floor(((now - began) / 1000) * (store.state?.video.fps ?? 24));
    const last = store.frames.length - 1;
    if (due > store.frame) {
      const wanted = Math.min(due, last);
      pictures.get(wanted);
      let newest = wanted; // that is here: where each comes late, none would be in time for its own turn
      while (newest > store.frame && !pictures.has(newest)) newest--;
      if (newest > store.frame) store.goTo(newest);
    }
    if (store.frame >= last) store.set("playing", false, "play");
    else requestAnimationFrame(tick);
  };
  store.on(["play"], () => {
    if (!store.playing) return;
    if (store.frame >= store.frames.length - 1) store.goTo(0);
    began = performance.now();
    from = store.frame;
    requestAnimationFrame(tick);
  });
}

export function togglePlay(store: Store): void {
  store.set("playing", !store.playing, "play");
}

export function jump(store: Store, to: "key" | "doubt", notice: (text: string) => void, step: 1 | -1 = 1): void {
  const keys = new Set(store.state?.keys);
  const doubtful = (i: number): boolean => store.frames[i].doubt !== "";
  // Of a stretch of uncertain frames its first one: a correction there mends the rest.
  const found = store.next((i) => (to === "key" ? keys.has(i) : doubtful(i) && (i === 0 || !doubtful(i - 1))), step);
  if (found === null) notice(to === "key" ? "No frame was corrected yet." : "No frame is uncertain.");
  else {
    store.stay();
    store.goTo(found);
  }
}
