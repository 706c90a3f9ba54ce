// The panels beside the picture: tools, objects, the mask's shape, propagation, the view.

import { element, make, onClick } from "./dom";
import { chooseEdges } from "./edges";
import { icon } from "./icons";
import type { Stage } from "./stage";
import type { Store, Tool, View } from "./store";

export const TOOLS: { tool: Tool; name: string; key: string; hint: string }[] = [
  { tool: "click", name: "Click or scribble on the object", key: "C", hint: "Click on the object. A right-click takes away what is not part of it." },
  { tool: "box", name: "Box around the object", key: "X", hint: "Drag a box around the object." },
  { tool: "brush", name: "Brush", key: "B", hint: "Paint the object. S and D change the size." },
  { tool: "eraser", name: "Eraser", key: "E", hint: "Wipe off the object. S and D change the size." },
  { tool: "polygon", name: "Polygon", key: "P", hint: "Click corners; Enter or a click on the first one closes. Take away with W, or Alt." },
  { tool: "lasso", name: "Lasso", key: "L", hint: "Draw around the object. Take away with W, or Alt." },
  { tool: "move", name: "Move the picture", key: "V", hint: "" },
];

export function addTools(store: Store): void {
  const group = element("tools");
  const buttons = TOOLS.map(({ tool, name, key }) => {
    const button = make("button", { title: `${name} (${key})` }, icon(tool), make("kbd", { ariaHidden: "true" }, key));
    button.setAttribute("role", "radio");
    button.setAttribute("aria-label", name);
    button.setAttribute("aria-keyshortcuts", key);
    button.addEventListener("click", () => store.set("tool", tool, "tool"));
    group.append(button);
    return button;
  });
  group.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const at = TOOLS.findIndex(({ tool }) => tool === store.tool);
    const next = (at + step + TOOLS.length) % TOOLS.length;
    store.set("tool", TOOLS[next].tool, "tool");
    buttons[next].focus();
    event.preventDefault();
    event.stopPropagation();
  });
  const show = (): void =>
    TOOLS.forEach(({ tool }, i) => {
      buttons[i].setAttribute("aria-checked", String(tool === store.tool));
      buttons[i].tabIndex = tool === store.tool ? 0 : -1;
    });
  store.on(["tool"], show);
  show();
}

export function addObjects(store: Store, stage: Stage): void {
  const list = element<HTMLUListElement>("objects");
  let shown = "";
  /** In place: the click that makes an object the active one may be meant for one of its buttons. */
  const showActive = (): void => {
    const active = String(store.active);
    for (const item of list.querySelectorAll<HTMLElement>("li")) {
      if (item.hasAttribute("data-active") === (item.dataset.id === active)) continue;
      item.toggleAttribute("data-active", item.dataset.id === active);
      if (item.dataset.id !== active) item.removeAttribute("aria-current");
      else {
        item.setAttribute("aria-current", "true");
        item.scrollIntoView({ block: "nearest" });
      }
    }
  };
  const show = (): void => {
    build();
    showActive();
  };
  const build = (): void => {
    const things = store.state!.objects;
    const now = JSON.stringify(things);
    if (now === shown) return;
    const ids = things.map((thing) => thing.id).join();
    const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.of : undefined;
    const typing = document.activeElement instanceof HTMLInputElement && list.contains(document.activeElement) && document.activeElement.type === "text";
    if (typing && list.dataset.ids === ids) return; // not under the user's hands
    shown = now;
    list.dataset.ids = ids;
    list.replaceChildren(
      ...things.map((thing) => {
        const colour = make("input", { type: "color", value: thing.colour, ariaLabel: `Colour of ${thing.name}` });
        colour.dataset.of = `colour ${thing.id}`;
        colour.addEventListener("change", () => store.send({ type: "change-object", object: thing.id, colour: colour.value }));
        const name = make("input", { type: "text", value: thing.name, maxLength: 60, ariaLabel: `Name of object ${thing.id}` });
        name.dataset.of = `name ${thing.id}`;
        name.addEventListener("focus", () => store.set("active", thing.id, "state"));
        name.addEventListener("change", () => {
          if (name.value.trim()) store.send({ type: "change-object", object: thing.id, name: name.value.trim() });
          else name.value = thing.name;
        });
        name.addEventListener("keydown", (event) => {
          if (event.key === "Escape") name.value = thing.name;
          if (event.key === "Enter" || event.key === "Escape") name.blur();
        });
        const eye = make("button", { ariaLabel: `${thing.visible ? "Hide" : "Show"} ${thing.name}` }, icon(thing.visible ? "eye" : "hidden"));
        eye.dataset.of = `eye ${thing.id}`;
        eye.addEventListener("click", () => store.send({ type: "change-object", object: thing.id, visible: !thing.visible }));
        const bin = make("button", { ariaLabel: `Remove ${thing.name}` }, icon("remove"));
        bin.dataset.of = `bin ${thing.id}`;
        bin.addEventListener("click", () => {
          stage.forgetMarks(); // the mask under them may have the object
          store.send({ type: "remove-object", object: thing.id });
        });
        const item = make("li", {}, colour, name, eye, bin);
        item.dataset.id = String(thing.id);
        item.addEventListener("pointerdown", () => {
          if (store.active !== thing.id) setTimeout(() => store.set("active", thing.id, "state"));
        });
        return item;
      }),
    );
    if (focused) (list.querySelector<HTMLElement>(`[data-of="${focused}"]`) ?? element("add")).focus();
  };
  store.on(["state"], show);
  list.addEventListener("focusout", () => setTimeout(show));
  onClick("add", () => store.addObject());
  show();
}

export function addMask(store: Store, stage: Stage): void {
  const brush = element<HTMLInputElement>("brush");
  const soft = element<HTMLInputElement>("soft");
  brush.addEventListener("input", () => store.set("brush", Number(brush.value), "brush"));
  soft.addEventListener("input", () => store.set("soft", Number(soft.value) / 100, "brush"));
  const away = onClick("take-away", () => away.hidden || store.set("takesAway", !store.takesAway, "brush"));
  away.title = "What is clicked, or drawn around, is taken out of the mask, as with Alt (W)";
  store.on(["tool"], () => (store.takesAway = false));
  for (const button of document.querySelectorAll<HTMLButtonElement>("[data-shape]")) {
    button.addEventListener("click", () => {
      stage.forgetMarks();
      if (!stage.toSeen() || button.disabled) return;
      store.send({ type: "shape", frame: store.frame, object: store.active, do: button.dataset.shape as "fill" | "grow" | "shrink" | "tidy" });
    });
  }
  const keep = onClick("keep", () => {
    if (stage.toSeen() && !keep.disabled) store.send({ type: "keep", frame: store.frame });
  });
  const clear = onClick("clear", () => {
    stage.forgetMarks();
    if (stage.toSeen() && !clear.disabled) store.send({ type: "clear", frame: store.frame });
  });
  keep.title = "Take the mask of this frame for a correction (K)";
  clear.title = "Drop what was drawn in this frame (Delete)";
  const show = (): void => {
    for (const row of ["brush-row", "soft-row"]) element(row).hidden = store.tool !== "brush" && store.tool !== "eraser";
    soft.value = String(Math.round(100 * store.soft));
    element("soft-value").textContent = `${soft.value} %`;
    brush.value = String(store.brush);
    element("brush-size").textContent = `${store.brush} px`;
    const here = store.labels();
    away.hidden = !["click", "polygon", "lasso"].includes(store.tool) || !here?.has(store.active); // what is not there cannot go
    if (here && away.hidden) store.takesAway = false;
    away.setAttribute("aria-pressed", String(store.takesAway));
    for (const button of document.querySelectorAll<HTMLButtonElement>("[data-shape]")) button.disabled = !here?.has(store.active);
    keep.disabled = store.isKey || !here?.data.some((id) => id > 0);
    clear.disabled = !store.isKey;
  };
  store.on(["tool", "brush", "state", "frame", "mask"], show);
  show();
}

export function addPropagation(store: Store): void {
  const method = element<HTMLSelectElement>("method");
  method.replaceChildren(...store.state!.methods.map(({ name, summary }) => make("option", { value: name, title: summary }, name)));
  method.addEventListener("change", () => store.send({ type: "choose", method: method.value }));
  const both = onClick("both", () => store.propagate("both"));
  const forward = onClick("forward", () => store.propagate("forward"));
  const backward = onClick("backward", () => store.propagate("backward"));
  const next = onClick("to-next", () => store.propagate("forward", true));
  const first = element<HTMLInputElement>("range-first");
  const last = element<HTMLInputElement>("range-last");
  const typed = (field: HTMLInputElement): number | null => (field.value === "" ? null : Number(field.value));
  first.addEventListener("change", () => store.setRange(typed(first), store.range?.last ?? null));
  last.addEventListener("change", () => store.setRange(store.range?.first ?? null, typed(last)));
  for (const field of [first, last]) {
    field.addEventListener("keydown", (event) => event.key === "Enter" && field.blur());
    field.addEventListener("blur", () => setTimeout(show)); // a number that no frame has gives way to what was taken for it
  }
  const all = onClick("range-all", () => store.setRange(null, null));
  const stop = onClick("stop", () => store.send({ type: "stop" }));
  both.title = "Make all frames that are not up to date (G)";
  forward.title = "Make what is not up to date from this frame on (F)";
  next.title = "Make what is not up to date from this frame to the next corrected one (T)";
  first.title = "The range's first frame; I takes the one that is shown";
  last.title = "The range's last frame; O takes the one that is shown";
  all.title = "No range: all frames (Shift I)";
  backward.title = "Make the frames before this corrected frame anew, backward from it (R)";
  const show = (): void => {
    const { job, problem, keys } = store.state!;
    for (const button of [both, forward, backward]) button.disabled = job !== null || keys.length === 0 || !store.online;
    next.disabled = forward.disabled || store.nextKey === null;
    const { range } = store;
    const within = range ? store.frames.slice(range.first, range.last + 1) : store.frames;
    const left = within.filter(({ status }) => status !== "fresh").length;
    const one = range !== null && range.first === range.last;
    const whole = one ? `Propagate in frame ${range.first}` : range ? `Propagate in frames ${range.first} to ${range.last}` : "Propagate to all frames";
    const done = range ? "The range is up to date" : "All frames are up to date";
    both.textContent = !keys.length || left === within.length ? whole : left ? `Update ${left} ${left === 1 ? "frame" : "frames"}` : done;
    for (const [field, at] of [[first, range?.first ?? 0], [last, range?.last ?? store.frames.length - 1]] as const) {
      field.max = String(store.frames.length - 1);
      if (document.activeElement !== field) field.value = String(at);
    }
    all.disabled = range === null;
    if (job) both.textContent = `${job.what} …`;
    if (!left) both.disabled = true;
    method.value = store.state!.method.method;
    method.title = store.state!.methods.find(({ name }) => name === method.value)?.summary ?? "";
    method.disabled = job !== null;
    element("job").hidden = job === null;
    for (const id of ["directions", "range"]) element(id).hidden = job !== null; // it has their place
    stop.disabled = job?.stopping ?? false;
    const bar = element<HTMLProgressElement>("progress");
    if (job?.total && job.done) {
      bar.max = job.total;
      bar.value = job.done;
    } else bar.removeAttribute("value");
    element("job-text").textContent = job ? `${job.stopping ? "Stopping" : job.at}${job.total && job.done ? `: ${job.done} of ${job.total}` : " …"}` : "";
    element("problem").hidden = problem === null;
    element("problem").textContent = problem ?? "";
  };
  store.on(["state", "job", "frames", "frame", "online", "range"], show);
  show();
}

export function addView(store: Store): void {
  const view = element<HTMLSelectElement>("view");
  const opacity = element<HTMLInputElement>("opacity");
  view.addEventListener("change", () => store.set("view", view.value as View, "view"));
  opacity.addEventListener("input", () => store.set("opacity", Number(opacity.value) / 100, "view"));
  chooseEdges(store, element<HTMLSelectElement>("view-edges"));
  const show = (): void => {
    view.value = store.view;
    opacity.value = String(Math.round(store.opacity * 100));
    element("opacity-value").textContent = `${opacity.value} %`;
    element("view-edges-row").hidden = store.view !== "matte" && store.view !== "cutout";
    element("opacity-row").hidden = store.view !== "overlay";
  };
  store.on(["view"], show);
  show();
}
