// The keyboard: one table of shortcuts, which the help shows.

import { element, make } from "./dom";
import { TOOLS } from "./panels";
import { jump, togglePlay } from "./player";
import type { Stage } from "./stage";
import type { Store } from "./store";

interface Shortcut {
  keys: string[]; // as `named` names them
  shown: string;
  what: string;
  call: () => void;
}

export function addKeys(store: Store, stage: Stage, notice: (text: string) => void, help: () => void): void {
  const by = (step: number) => () => {
    store.set("playing", false, "play");
    store.goTo(store.frame + step);
  };
  const press = (id: string) => () => element<HTMLButtonElement>(id).click();
  const shortcuts: Shortcut[] = [
    ...TOOLS.map(({ tool, name, key }) => ({ keys: [key.toLowerCase()], shown: key, what: name, call: () => store.set("tool", tool, "tool") })),
    { keys: ["w"], shown: "W", what: "Take away, add again", call: press("take-away") },
    { keys: ["s", "["], shown: "S, [ or Shift wheel", what: "Brush smaller", call: () => store.resizeBrush(false) },
    { keys: ["d", "]"], shown: "D, ] or Shift wheel", what: "Brush larger", call: () => store.resizeBrush(true) },
    { keys: ["arrowleft", ","], shown: "← or ,", what: "Previous frame", call: by(-1) },
    { keys: ["arrowright", "."], shown: "→ or .", what: "Next frame", call: by(1) },
    { keys: ["shift+arrowleft"], shown: "Shift ←", what: "Ten frames back", call: by(-10) },
    { keys: ["shift+arrowright"], shown: "Shift →", what: "Ten frames on", call: by(10) },
    { keys: ["home"], shown: "Home", what: "First frame", call: press("first") },
    { keys: ["end"], shown: "End", what: "Last frame", call: press("last") },
    { keys: [" "], shown: "Space", what: "Play, pause; hold to move the picture", call: () => {} },
    { keys: ["g"], shown: "G", what: "Propagate, update", call: press("both") },
    { keys: ["f"], shown: "F", what: "Propagate forward", call: press("forward") },
    { keys: ["r"], shown: "R", what: "Propagate backward", call: press("backward") },
    { keys: ["t"], shown: "T", what: "Propagate to the next corrected frame", call: press("to-next") },
    { keys: ["i"], shown: "I", what: "Range begins here", call: () => store.setRange(store.frame, store.range?.last ?? null) },
    { keys: ["o"], shown: "O", what: "Range ends here", call: () => store.setRange(store.range?.first ?? null, store.frame) },
    { keys: ["shift+i"], shown: "Shift I", what: "No range", call: press("range-all") },
    { keys: ["u"], shown: "U", what: "Next uncertain frame", call: () => jump(store, "doubt", notice) },
    { keys: ["n"], shown: "N", what: "Next corrected frame", call: () => jump(store, "key", notice) },
    { keys: ["shift+n"], shown: "Shift N", what: "Corrected frame before", call: () => jump(store, "key", notice, -1) },
    { keys: ["k"], shown: "K", what: "Mark the frame as right", call: press("keep") },
    { keys: ["delete", "backspace"], shown: "Delete", what: "Clear the frame", call: press("clear") },
    { keys: ["mod+z"], shown: "Ctrl Z", what: "Undo", call: press("undo") },
    { keys: ["mod+shift+z", "mod+y"], shown: "Ctrl Shift Z", what: "Redo", call: press("redo") },
    { keys: ["a"], shown: "A", what: "Add an object", call: press("add") },
    { keys: [], shown: "1 to 9", what: "Choose an object", call: () => {} },
    { keys: ["m"], shown: "M", what: "Next view", call: () => nextView(store) },
    { keys: ["+", "="], shown: "+ or wheel", what: "Zoom in", call: press("zoom-in") },
    { keys: ["-"], shown: "−", what: "Zoom out", call: press("zoom-out") },
    { keys: ["0"], shown: "0", what: "Fit the picture", call: press("zoom-fit") },
    { keys: ["j"], shown: "J", what: "Draw by keys: arrows move (Shift: finely), Enter clicks", call: () => stage.toggleCrosshair() },
    { keys: ["enter"], shown: "Enter", what: "Close the polygon", call: () => stage.closePolygon() },
    { keys: ["escape"], shown: "Esc", what: "Leave what is half drawn; stop", call: () => stage.abandon() || (store.state?.job && press("stop")()) },
    { keys: ["?"], shown: "?", what: "This list", call: help },
  ];
  const table = new Map(shortcuts.flatMap(({ keys, call }) => keys.map((key) => [key, call] as const)));
  table.delete(" ");
  element("shortcuts").replaceChildren(
    ...shortcuts.map(({ shown, what }) => make("div", {}, make("span", {}, what), make("kbd", {}, shown))),
  );

  let spaceMoved = false;
  addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    const target = event.target as HTMLElement;
    const typing = target instanceof HTMLInputElement && target.type !== "range" && target.type !== "color";
    if (typing || target instanceof HTMLTextAreaElement) return;
    const name = named(event);
    if (stage.hasCrosshair && !target.closest("button, select, input")) {
      const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      const far = event.shiftKey ? 1 : 10;
      if (arrow) stage.moveCrosshair(arrow[0] * far, arrow[1] * far);
      else if (event.key === "Enter") stage.clickCrosshair(event.altKey);
      if (arrow || event.key === "Enter") {
        event.preventDefault();
        return;
      }
    }
    const onControl = target.closest("button, select, input") !== null;
    const isSetByKeys = onControl && !(target instanceof HTMLButtonElement);
    if (onControl && (name === " " || name === "enter" || (isSetByKeys && /arrow|^home$|^end$/.test(name)))) return;
    if (name === " ") {
      event.preventDefault();
      if (!event.repeat) {
        stage.spaceHeld = true;
        spaceMoved = false;
      }
      return;
    }
    if (/^[1-9]$/.test(name)) {
      const thing = store.state?.objects[Number(name) - 1];
      if (thing) store.set("active", thing.id, "state");
      return;
    }
    const call = table.get(name);
    if (!call) return;
    event.preventDefault();
    call();
  });
  addEventListener("pointerdown", () => (spaceMoved = true), true);
  addEventListener("keyup", (event) => {
    if (event.key !== " " || !stage.spaceHeld) return;
    stage.spaceHeld = false;
    if (!spaceMoved) togglePlay(store);
  });
  addEventListener("blur", () => (stage.spaceHeld = false));
}

function named(event: KeyboardEvent): string {
  const key = event.key.toLowerCase();
  if (event.altKey && /^[[\]]$/.test(key)) return key; // typed with AltGr, or Option
  const mod = event.ctrlKey || event.metaKey ? "mod+" : "";
  const shift = event.shiftKey && (key.length > 1 || /[a-z]/.test(key)) ? "shift+" : "";
  return event.altKey && key !== "alt" ? "" : `${mod}${shift}${key}`;
}

function nextView(store: Store): void {
  const views = ["overlay", "outline", "matte", "cutout", "difference"] as const;
  store.set("view", views[(views.indexOf(store.view) + 1) % views.length], "view");
}
